/* keeper.c: the supervisor of one run: starts the command, reaps its whole tree, ends it, and tells the caller.
 *
 * It is the subreaper of everything the run starts, so double forks and new sessions stay within its reach. It answers
 * on the run's own socket; when the caller closes that, nobody wants the run any more.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "internal.h"

enum { MAX_BODY = 16 << 20 };

struct keeper {
    const struct sandbox *sandbox;
    const struct sbx_run *run;
    struct tree tree;
    int reply, signals;
    pid_t command;
    bool alive;              /* the main process */
    uint64_t started_ns, next_look_ns;
    struct sbx_exit exit;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t timeval_ns(struct timeval value)
{
    return (uint64_t)value.tv_sec * 1000000000 + (uint64_t)value.tv_usec * 1000;
}

__attribute__((noreturn)) static void give_up(int reply)
{
    wire_send(reply, &report, sizeof report, NULL, 0);
    _exit(0);
}

/* The body behind the header, or in a memfd; copied either way, the sender may not change it any more. */
static char *take_body(const struct sbx_run *run, size_t length, int *fds, int *fd_count)
{
    char *body;

    errno = EINVAL;
    if (length < sizeof *run || run->body_len == 0 || run->body_len > MAX_BODY)
        return NULL;
    if (!(run->flags & SBX_RUN_BODY_FD))
        return length == sizeof *run + run->body_len ? (char *)(uintptr_t)(run + 1) : NULL;
    if (*fd_count < 2 || (body = malloc(run->body_len)) == NULL)
        return NULL;
    if (pread(fds[1], body, run->body_len, 0) != (ssize_t)run->body_len) {
        errno = EINVAL;
        return NULL;
    }
    close(fds[1]);
    memmove(fds + 1, fds + 2, (size_t)(*fd_count - 2) * sizeof(int));
    --*fd_count;
    return body;
}

static void fill_usage(struct keeper *keeper)
{
    struct rusage usage;

    getrusage(RUSAGE_CHILDREN, &usage); /* everything reaped: as subreaper we reap all of the run */
    keeper->exit.user_ns = timeval_ns(usage.ru_utime);
    keeper->exit.system_ns = timeval_ns(usage.ru_stime);
    keeper->exit.max_rss = (uint64_t)usage.ru_maxrss * 1024;
    keeper->exit.minor_faults = (uint64_t)usage.ru_minflt;
    keeper->exit.major_faults = (uint64_t)usage.ru_majflt;
    keeper->exit.voluntary_switches = (uint64_t)usage.ru_nvcsw;
    keeper->exit.involuntary_switches = (uint64_t)usage.ru_nivcsw;
    keeper->exit.blocks_in = (uint64_t)usage.ru_inblock;
    keeper->exit.blocks_out = (uint64_t)usage.ru_oublock;
}

static void tell_exit(struct keeper *keeper)
{
    fill_usage(keeper);
    /* A short overrun between two looks still counts, whatever the program's exit looked like. */
    if (keeper->run->cpu_limit_ns != 0 && keeper->exit.cause == SBX_CAUSE_NONE &&
        keeper->exit.user_ns + keeper->exit.system_ns > keeper->run->cpu_limit_ns)
        keeper->exit.cause = SBX_CAUSE_CPU;
    keeper->exit.kind = SBX_EXITED;
    wire_send(keeper->reply, &keeper->exit, sizeof keeper->exit, NULL, 0);
}

/* The main process is waited for by pid first, so that its status is never lost among the orphans'. */
static bool reap_command(struct keeper *keeper, int options)
{
    int status;

    if (!keeper->alive || waitpid(keeper->command, &status, options) != keeper->command)
        return false;
    keeper->alive = false;
    keeper->exit.status = status;
    keeper->exit.wall_ns = now_ns() - keeper->started_ns;
    return true;
}

/* Ends the run. The cause counts only if the main process was still alive to be ended by it. */
static void end_run(struct keeper *keeper, enum sbx_cause cause)
{
    bool told = !keeper->alive;

    reap_command(keeper, WNOHANG);
    if (keeper->alive) {
        keeper->exit.cause = cause;
        kill(keeper->command, SIGKILL);
        reap_command(keeper, 0);
    }
    tree_kill(&keeper->tree);
    if (!told)
        tell_exit(keeper);
    _exit(0);
}

static void obey(struct keeper *keeper)
{
    struct sbx_order order;
    int fds[4], fd_count;
    ssize_t length = wire_receive(keeper->reply, &order, sizeof order, fds, 4, &fd_count);

    wire_close(fds, fd_count);
    if (length == 0 || (length < 0 && errno != EMSGSIZE))
        end_run(keeper, SBX_CAUSE_KILLED);
    if (length != sizeof order)
        return;
    if (order.kind == SBX_KILL)
        end_run(keeper, (enum sbx_cause)order.value);
    if (order.kind == SBX_SIGNAL && keeper->alive)
        kill(keeper->command, order.value);
}

static void notice_deaths(struct keeper *keeper)
{
    struct signalfd_siginfo info;

    while (read(keeper->signals, &info, sizeof info) > 0)
        ;
    if (reap_command(keeper, WNOHANG)) {
        if (!(keeper->run->flags & SBX_RUN_LINGER)) {
            tree_kill(&keeper->tree);
            tell_exit(keeper);
            _exit(0);
        }
        tell_exit(keeper);
    }
    if (!keeper->alive)
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    else /* orphans only: the main process keeps its status for reap_command */
        for (siginfo_t dead = { 0 }; waitid(P_ALL, 0, &dead, WEXITED | WNOHANG | WNOWAIT) == 0 && dead.si_pid != 0 &&
                                     dead.si_pid != keeper->command; dead.si_pid = 0)
            waitpid(dead.si_pid, NULL, 0);
}

/* CPU time of the run so far; the next look is due when all processors together could have used up the rest. */
static void look_at_cpu(struct keeper *keeper)
{
    struct rusage reaped;
    uint32_t processes;
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t used = tree_cpu_ns(&keeper->tree, &processes);

    getrusage(RUSAGE_CHILDREN, &reaped);
    used += timeval_ns(reaped.ru_utime) + timeval_ns(reaped.ru_stime);
    if (used >= keeper->run->cpu_limit_ns)
        end_run(keeper, SBX_CAUSE_CPU);
    uint64_t rest = (keeper->run->cpu_limit_ns - used) / (uint64_t)(processors > 0 ? processors : 1);
    keeper->next_look_ns = now_ns() + (rest > 1000000 ? rest : 1000000);
}

static int until_next_look(struct keeper *keeper)
{
    if (keeper->run->cpu_limit_ns == 0 || !keeper->alive)
        return -1;
    uint64_t now = now_ns();
    if (now >= keeper->next_look_ns)
        look_at_cpu(keeper);
    uint64_t wait_ms = (keeper->next_look_ns - now + 999999) / 1000000;
    return wait_ms > 60000 ? 60000 : (int)wait_ms;
}

static void tell_start(const struct keeper *keeper)
{
    struct sbx_report started = { .kind = SBX_STARTED, .index = -1 };
    int pidfd = k_pidfd_open(keeper->command);

    wire_send(keeper->reply, &started, sizeof started, &pidfd, pidfd >= 0);
    if (pidfd >= 0)
        close(pidfd);
}

static void start(struct keeper *keeper, char *body, const int *fds, int fd_count)
{
    struct command command = { .stdio = fds + 1, .pass_fds = fds + 4 };

    if (command_unpack(&command, keeper->run, body, keeper->run->body_len) < 0 ||
        fd_count != 4 + (int)command.pass_count) {
        failed(SBX_STEP_RUN_REQUEST, -1);
        give_up(keeper->reply);
    }
    keeper->started_ns = now_ns();
    keeper->command = command_spawn(keeper->sandbox, &command);
    if (keeper->command < 0)
        give_up(keeper->reply);
    keeper->alive = true;
    if (keeper->run->flags & SBX_RUN_STARTED)
        tell_start(keeper);
}

void keeper_main(const struct sandbox *sandbox, int signals, const void *record, size_t length, int *fds, int fd_count)
{
    struct keeper keeper = { .sandbox = sandbox, .run = record, .reply = fds[0], .signals = signals,
                             .tree = { .proc = sandbox->proc, .root = getpid() } };
    char *body = fault_at(SBX_STEP_RUN_REQUEST) ? NULL : take_body(record, length, fds, &fd_count);

    memset(&report, 0, sizeof report);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (body == NULL) {
        failed(SBX_STEP_RUN_REQUEST, -1);
        give_up(keeper.reply);
    }
    start(&keeper, body, fds, fd_count);
    wire_close(fds + 1, fd_count - 1); /* or the readers of the pipes would wait for us */
    for (;;) {
        struct pollfd watched[2] = { { .fd = keeper.reply, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
        if (poll(watched, 2, until_next_look(&keeper)) < 0)
            continue;
        if (watched[1].revents)
            notice_deaths(&keeper);
        if (watched[0].revents)
            obey(&keeper);
    }
}
