/* command.c: from a run request to an exec'd program.
 *
 * The child shares the keeper's memory until exec (vfork), so everything it needs is laid out before; between the two
 * it makes system calls only, in the order below, and leaves the step and errno of a failure in `report`.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "internal.h"

static char **take_strings(char **cursor, const char *end, uint32_t count)
{
    char **list = calloc((size_t)count + 1, sizeof *list);

    for (uint32_t i = 0; list != NULL && i < count; i++) {
        if (*cursor >= end) {
            free(list);
            return NULL;
        }
        list[i] = *cursor;
        *cursor += strlen(*cursor) + 1; /* the body ends in NUL: strlen stops inside it */
    }
    return list;
}

/* body stays in use; its last byte must be NUL. */
int command_unpack(struct command *command, const struct sbx_run *run, char *body, size_t length)
{
    const size_t numbers = run->rlimit_count * sizeof(struct sbx_rlimit) + run->pass_count * sizeof(int32_t);
    char *cursor = body + numbers, *end = body + length;

    errno = EINVAL;
    if (run->rlimit_count > 64 || run->pass_count > 253 || numbers >= length || end[-1] != '\0' ||
        run->argc == 0 || run->candidate_count == 0 || run->argc > length || run->envc > length ||
        run->candidate_count > length)
        return -1;
    command->rlimits = (const struct sbx_rlimit *)(const void *)body;
    command->rlimit_count = run->rlimit_count;
    command->pass_targets = (const int32_t *)(const void *)(body + run->rlimit_count * sizeof(struct sbx_rlimit));
    command->pass_count = run->pass_count;
    command->terminal = (run->flags & SBX_RUN_TERMINAL) != 0;
    command->cwd = cursor;
    cursor += strlen(cursor) + 1;
    command->candidates = take_strings(&cursor, end, run->candidate_count);
    command->argv = take_strings(&cursor, end, run->argc);
    command->environ = take_strings(&cursor, end, run->envc);
    return command->candidates != NULL && command->argv != NULL && command->environ != NULL ? 0 : -1;
}

static int child_stdio(const struct command *command)
{
    int moved[3];

    /* Out of the way first: the fds that came in may bear the very numbers they are to be put on. */
    for (int i = 0; i < 3; i++)
        if (fault_at(SBX_STEP_STDIO) || (moved[i] = fcntl(command->stdio[i], F_DUPFD, 3)) < 0)
            return failed(SBX_STEP_STDIO, i);
    for (int i = 0; i < 3; i++)
        if (dup2(moved[i], i) < 0)
            return failed(SBX_STEP_STDIO, i);
    if (command->terminal && (fault_at(SBX_STEP_TERMINAL) || ioctl(0, TIOCSCTTY, 0) < 0))
        return failed(SBX_STEP_TERMINAL, -1);
    return 0;
}

/* Passed fds keep the caller's numbers; everything else from 3 on is closed. */
static int child_fds(const struct command *command)
{
    int moved[253], keep[253], highest = 2;

    for (uint32_t i = 0; i < command->pass_count; i++)
        if (command->pass_targets[i] > highest)
            highest = command->pass_targets[i];
    for (uint32_t i = 0; i < command->pass_count; i++)
        if (fault_at(SBX_STEP_PASS_FDS) || (moved[i] = fcntl(command->pass_fds[i], F_DUPFD, highest + 1)) < 0)
            return failed(SBX_STEP_PASS_FDS, (int)i);
    for (uint32_t i = 0; i < command->pass_count; i++) {
        if (dup2(moved[i], command->pass_targets[i]) < 0)
            return failed(SBX_STEP_PASS_FDS, (int)i);
        keep[i] = command->pass_targets[i];
    }
    if (fault_at(SBX_STEP_CLOSE_FDS) || fds_close_except(keep, (int)command->pass_count) < 0)
        return failed(SBX_STEP_CLOSE_FDS, -1);
    return 0;
}

static int child_rlimits(const struct command *command)
{
    for (uint32_t i = 0; i < command->rlimit_count; i++) {
        const struct rlimit limit = { .rlim_cur = command->rlimits[i].soft, .rlim_max = command->rlimits[i].hard };
        if (fault_at(SBX_STEP_RLIMIT) || setrlimit((__rlimit_resource_t)command->rlimits[i].resource, &limit) < 0)
            return failed(SBX_STEP_RLIMIT, (int)i);
    }
    return 0;
}

/* From supervisor to user for good: real and saved id take the effective one's value. Raw calls: no libc state. */
static int child_identity(void)
{
    const uid_t uid = geteuid();

    if (fault_at(SBX_STEP_IDENTITY) || syscall(SYS_setresuid, uid, uid, uid) < 0)
        return failed(SBX_STEP_IDENTITY, -1);
    return 0;
}

static void child_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* As execvpe: the first error that is not "not here" wins over "found nowhere". */
static int child_exec(const struct command *command)
{
    int error = 0, index = 0;

    if (fault_at(SBX_STEP_EXEC))
        return failed(SBX_STEP_EXEC, -1);
    for (int i = 0; command->candidates[i] != NULL; i++) {
        execve(command->candidates[i], command->argv, command->environ);
        if (errno != ENOENT && errno != ENOTDIR && error == 0) {
            error = errno;
            index = i;
        }
    }
    if (error != 0)
        errno = error;
    return failed(SBX_STEP_EXEC, index);
}

static int child_main(const struct command *command)
{
    if (fault_at(SBX_STEP_SESSION) || setsid() < 0)
        return failed(SBX_STEP_SESSION, -1);
    if (child_stdio(command) < 0 || child_fds(command) < 0 || child_rlimits(command) < 0 || child_identity() < 0)
        return -1;
    umask(022);
    if (fault_at(SBX_STEP_CWD) || chdir(command->cwd) < 0)
        return failed(SBX_STEP_CWD, -1);
    child_signals();
    return child_exec(command);
}

pid_t command_spawn(const struct sandbox *sandbox, const struct command *command)
{
    (void)sandbox;
    memset(&report, 0, sizeof report);
    report.index = -1;
    pid_t pid = vfork();
    if (pid == 0) {
        child_main(command);
        _exit(127);
    }
    if (pid < 0)
        return failed(SBX_STEP_RUN_FORK, -1);
    return report.kind == SBX_FAILED ? -1 : pid;
}
