/* serve.c: init at work. It never blocks on a program: a run is handed to a keeper of its own, a file request is a few
 * system calls with the sandbox user's identity. When the caller is gone it ends, and the kernel ends all the rest. */
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "internal.h"

enum { MAX_RECORD = 65536 + sizeof(struct sbx_run), MAX_REQUEST_FDS = 253 };

static int watch_children(void)
{
    sigset_t children;

    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    return signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Our children are keepers, and orphans of keepers that were killed. Only where a single id is mapped can a program kill
 * a keeper; what it ran is then out of anybody's sight, so everything in the sandbox has to go. */
static void reap(int signals)
{
    struct signalfd_siginfo info;
    int status;
    bool tampered = false;

    while (read(signals, &info, sizeof info) > 0)
        ;
    while (waitpid(-1, &status, WNOHANG) > 0)
        tampered = tampered || WIFSIGNALED(status);
    while (tampered) {
        kill(-1, SIGKILL);
        if (waitpid(-1, NULL, 0) < 0)
            tampered = errno != ECHILD;
    }
}

static void refuse(int reply, enum sbx_step step)
{
    memset(&report, 0, sizeof report);
    failed(step, -1);
    wire_send(reply, &report, sizeof report, NULL, 0);
    memset(&report, 0, sizeof report);
}

static void start_run(struct sandbox *sandbox, int signals, const void *record, size_t length, int *fds, int fd_count)
{
    pid_t keeper = fault_at(SBX_STEP_RUN_FORK) ? -1 : fork();

    if (keeper == 0) {
        close(sandbox->control);
        keeper_main(sandbox, signals, record, length, fds, fd_count);
    }
    if (keeper < 0)
        refuse(fds[0], SBX_STEP_RUN_FORK);
    fault_disarm();
}

void serve(struct sandbox *sandbox)
{
    static char record[MAX_RECORD] __attribute__((aligned(8)));
    struct pollfd watched[2] = { { .fd = sandbox->control, .events = POLLIN }, { .fd = watch_children(), .events = POLLIN } };
    int fds[MAX_REQUEST_FDS], fd_count;
    uint32_t kind;

    prctl(PR_SET_CHILD_SUBREAPER, 1); /* pid 1 is one anyway; in a joined pid namespace we are not pid 1 */
    for (;;) {
        if (poll(watched, 2, -1) < 0)
            continue;
        if (watched[1].revents)
            reap(watched[1].fd);
        if (!watched[0].revents)
            continue;
        ssize_t length = wire_receive(sandbox->control, record, sizeof record, fds, MAX_REQUEST_FDS, &fd_count);
        if (length == 0 || (length < 0 && errno != EMSGSIZE))
            _exit(0);
        if (length < (ssize_t)sizeof kind || fd_count < 1)
            continue;
        memcpy(&kind, record, sizeof kind);
        if (kind == SBX_RUN)
            start_run(sandbox, watched[1].fd, record, (size_t)length, fds, fd_count);
        else if (kind == SBX_FILE)
            file_request(sandbox, record, (size_t)length, fds[0]);
        wire_close(fds, fd_count);
    }
}
