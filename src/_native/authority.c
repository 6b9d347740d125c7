/* authority.c: where the launcher's power over namespaces comes from.
 *
 * Host root has it. Anybody else becomes root of a user namespace of the launcher's own, once; after that the making of
 * a sandbox is the same for both (namespaces owned by an outer user namespace, the sandbox's own user namespace last).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "internal.h"

int identity_write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t length = strlen(text);

    if (fd < 0)
        return -1;
    ssize_t written = write(fd, text, length);
    int error = errno;
    close(fd);
    errno = written < 0 ? error : EIO;
    return written == (ssize_t)length ? 0 : -1;
}

/* newuidmap/newgidmap PID 0 ID 1 1 SUB COUNT, run from outside the new namespace. */
static int run_map_helper(const char *program, pid_t target, const char *id, const char *start, const char *count)
{
    char pid[16];
    int status;

    snprintf(pid, sizeof pid, "%d", (int)target);
    pid_t child = fork();
    if (child < 0)
        return -1;
    if (child == 0) {
        execlp(program, program, pid, "0", id, "1", "1", start, count, (char *)NULL);
        _exit(127);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    errno = EPERM;
    return status == 0 ? 0 : -1;
}

/* Waits in the outer namespace until its parent has unshared, then has the maps written by the set-id helpers. */
static pid_t start_mapper(int *go, char **ids)
{
    int ends[2];
    pid_t launcher = getpid();

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(ends[1]);
        if (read(ends[0], &byte, 1) != 1)
            _exit(3);
        if (run_map_helper("newuidmap", launcher, ids[0], ids[2], ids[3]) < 0)
            _exit(1);
        _exit(run_map_helper("newgidmap", launcher, ids[1], ids[4], ids[5]) < 0 ? 2 : 0);
    }
    close(ends[0]);
    *go = ends[1];
    return child;
}

static int map_subordinate(struct authority *authority, char **ids)
{
    int go, status;
    pid_t mapper = start_mapper(&go, ids);

    if (mapper < 0)
        return failed(SBX_STEP_AUTHORITY_UID_MAP, -1);
    if (fault_at(SBX_STEP_AUTHORITY_CLONE) || unshare(CLONE_NEWUSER) < 0) {
        failed(SBX_STEP_AUTHORITY_CLONE, -1);
        close(go);
        waitpid(mapper, NULL, 0);
        return -1;
    }
    ssize_t sent = write(go, "g", 1);
    close(go);
    if (waitpid(mapper, &status, 0) < 0 || sent != 1 || status != 0) {
        errno = EPERM;
        return failed(WIFEXITED(status) && WEXITSTATUS(status) == 2 ? SBX_STEP_AUTHORITY_GID_MAP
                                                                    : SBX_STEP_AUTHORITY_UID_MAP, -1);
    }
    authority->sub_ids = (uint32_t)strtoul(ids[3], NULL, 10);
    uint32_t sub_gids = (uint32_t)strtoul(ids[5], NULL, 10);
    if (sub_gids < authority->sub_ids)
        authority->sub_ids = sub_gids;
    return 0;
}

static int map_single(const char *uid, const char *gid)
{
    char line[64];

    if (fault_at(SBX_STEP_AUTHORITY_CLONE) || unshare(CLONE_NEWUSER) < 0)
        return failed(SBX_STEP_AUTHORITY_CLONE, -1);
    snprintf(line, sizeof line, "0 %s 1", uid);
    if (fault_at(SBX_STEP_AUTHORITY_UID_MAP) || identity_write_file("/proc/self/uid_map", line) < 0)
        return failed(SBX_STEP_AUTHORITY_UID_MAP, -1);
    snprintf(line, sizeof line, "0 %s 1", gid);
    /* CVE-2014-8989: an unprivileged gid map needs setgroups to be switched off first. */
    if (fault_at(SBX_STEP_AUTHORITY_GID_MAP) || identity_write_file("/proc/self/setgroups", "deny") < 0 ||
        identity_write_file("/proc/self/gid_map", line) < 0)
        return failed(SBX_STEP_AUTHORITY_GID_MAP, -1);
    return 0;
}

/* arguments: "root" | "user" UID GID [SUBUID COUNT SUBGID COUNT] */
int authority_acquire(struct authority *authority, int argc, char **argv)
{
    if (argc == 1 && strcmp(argv[0], "root") == 0)
        authority->root = true;
    else if (argc == 3 && strcmp(argv[0], "user") == 0) {
        if (map_single(argv[1], argv[2]) < 0)
            return -1;
    } else if (argc == 7 && strcmp(argv[0], "user") == 0) {
        if (map_subordinate(authority, argv + 1) < 0)
            return -1;
    } else {
        errno = EINVAL;
        return failed(SBX_STEP_LAUNCHER_START, -1);
    }
    authority->self = k_pidfd_open(getpid());
    if (authority->self < 0 || namespaces_record(authority) < 0)
        return failed(SBX_STEP_LAUNCHER_START, -1);
    return 0;
}
