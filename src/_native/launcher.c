/* launcher.c: the one small process per calling process that makes sandboxes, reaps their inits and removes the rest.
 *
 * It is exec'd once and single-threaded, so that clone is cheap and unaffected by the caller's size, threads and mounts;
 * it outlives a killed caller just long enough to clean up. It learns of the caller's end twice: by EOF on its socket
 * and, because a fork of the caller may hold a copy of that socket, by a pidfd.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "internal.h"

enum { INLINE_PLAN = 65536, MAX_PLAN = 64 << 20, MAX_PLAN_FDS = 2 + 8 + 1 };

/* One live sandbox, from before its clone until nothing of it is left. */
struct box {
    struct box *next;
    struct sbx_plan *plan;
    pid_t init;
    int status;            /* our copy of init's end: closing it tells the caller that all is gone */
    int slot;              /* id range, or -1 */
};

static struct authority authority;
static struct box *boxes;
static int events = -1, signals = -1;
static bool caller_gone;

static int watch(int fd, void *what)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP, .data = { .ptr = what } };

    return epoll_ctl(events, EPOLL_CTL_ADD, fd, &event);
}

static void say(int sock)
{
    report.kind = SBX_FAILED;
    wire_send(sock, &report, sizeof report, NULL, 0);
}

static void box_free(struct box *box)
{
    cgroup_remove(box->plan);
    if (box->slot >= 0)
        idrange_release(box->slot);
    /* Said aloud: a fork of us may still share the description, and epoll would keep pointing at a freed box. */
    epoll_ctl(events, EPOLL_CTL_DEL, box->status, NULL);
    close(box->status);
    free(box->plan);
    free(box);
}

/* A plan, checked and in memory of our own: behind the header, or in the memfd that came last. */
static struct sbx_plan *plan_take(const void *record, size_t length, int *fds, int *fd_count)
{
    const struct sbx_plan *header = record;
    struct sbx_plan *plan;
    size_t size = length;

    errno = EINVAL;
    if (length < 8 || header->size > MAX_PLAN)
        return NULL;
    if (length == 8 && *fd_count > 2) {
        int body = fds[--*fd_count];
        size = header->size;
        plan = malloc(size + 1);
        if (plan != NULL && pread(body, plan, size, 0) != (ssize_t)size) {
            free(plan);
            plan = NULL;
        }
        close(body);
    } else if ((plan = malloc(size)) != NULL)
        memcpy(plan, record, size);
    if (plan == NULL || plan_check(plan, size) < 0 || *fd_count != 2 + (int)plan->join_count) {
        free(plan);
        errno = EINVAL;
        return NULL;
    }
    return plan;
}

static pid_t fork_init(const struct sandbox *sandbox, unsigned long more_flags)
{
    const unsigned long flags = sandbox->plan->namespaces & ~(uint32_t)CLONE_NEWCGROUP;

    return (pid_t)syscall(SYS_clone, flags | more_flags | SIGCHLD, 0, 0, 0, 0);
}

/* A pid namespace can only be joined by whoever is to be the parent, and not left again without power over our own. So a
 * child of ours joins it and makes init there, as a child of ours (CLONE_PARENT); it tells us the pid and is done. */
static pid_t fork_init_in(struct sandbox *sandbox, int pid_namespace)
{
    int ends[2], status;
    pid_t init = -1;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    pid_t joiner = fork();
    if (joiner == 0) {
        if (setns(pid_namespace, CLONE_NEWPID) < 0 || (init = fork_init(sandbox, CLONE_PARENT)) < 0)
            _exit(errno);
        if (init == 0)
            init_main(sandbox);
        _exit(write(ends[1], &init, sizeof init) == sizeof init ? 0 : EIO);
    }
    close(ends[1]);
    if (joiner < 0 || waitpid(joiner, &status, 0) < 0)
        status = EAGAIN << 8;
    if (status == 0 && read(ends[0], &init, sizeof init) != sizeof init)
        status = EIO << 8;
    close(ends[0]);
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
    return errno == 0 ? init : -1;
}

/* init is a fork of us in new namespaces. */
static pid_t clone_init(struct sandbox *sandbox)
{
    const struct sbx_join *joins = plan_array(sandbox->plan, sandbox->plan->joins);

    if (fault_at(SBX_STEP_CLONE))
        return -1;
    for (uint32_t i = 0; i < sandbox->plan->join_count; i++)
        if (joins[i].nstype == CLONE_NEWPID)
            return fork_init_in(sandbox, sandbox->joins[i]);
    pid_t pid = fork_init(sandbox, 0);
    if (pid == 0)
        init_main(sandbox);
    return pid;
}

/* Everything that must exist before init: returns init's pid, or -1 with `report` filled. */
static pid_t box_make(struct box *box, struct sandbox *sandbox)
{
    if (authority.root) {
        box->slot = fault_at(SBX_STEP_ID_RANGE) ? -1 : idrange_take();
        if (box->slot < 0)
            return failed(SBX_STEP_ID_RANGE, -1);
        sandbox->id_base = SBX_ID_BASE + (uint32_t)box->slot * SBX_ID_COUNT;
    }
    if (cgroup_create(box->plan) < 0)
        return -1;
    if ((box->plan->flags & SBX_PLAN_USERNS) && identity_make_userns(sandbox) < 0)
        return -1;
    pid_t pid = clone_init(sandbox);
    return pid < 0 ? failed(SBX_STEP_CLONE, -1) : pid;
}

static void create(const void *record, size_t length, int *fds, int fd_count)
{
    struct sandbox sandbox = { .authority = &authority, .userns = -1, .proc = -1, .root = -1, .upper = -1 };
    struct box *box = calloc(1, sizeof *box);

    memset(&report, 0, sizeof report);
    report.index = -1;
    if (box == NULL || (box->plan = plan_take(record, length, fds, &fd_count)) == NULL || fault_at(SBX_STEP_PLAN)) {
        failed(SBX_STEP_PLAN, -1);
        if (fd_count > 1)
            say(fds[1]);
        wire_close(fds, fd_count);
        if (box != NULL)
            free(box->plan);
        free(box);
        return;
    }
    box->slot = -1;
    box->status = fds[1];
    sandbox.plan = box->plan;
    sandbox.control = fds[0];
    sandbox.status = fds[1];
    memcpy(sandbox.joins, fds + 2, (size_t)(fd_count - 2) * sizeof(int));
    box->init = box_make(box, &sandbox);
    close(fds[0]);
    wire_close(fds + 2, fd_count - 2);
    if (sandbox.userns >= 0)
        close(sandbox.userns);
    if (box->init < 0) {
        say(box->status);
        box_free(box);
        return;
    }
    box->next = boxes;
    boxes = box;
    if (watch(box->status, box) < 0)
        kill(box->init, SIGKILL);
}

static void reap(void)
{
    struct signalfd_siginfo info;
    pid_t pid;

    while (read(signals, &info, sizeof info) > 0)
        ;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        for (struct box **place = &boxes; *place != NULL; place = &(*place)->next)
            if ((*place)->init == pid) {
                struct box *gone = *place;
                *place = gone->next;
                box_free(gone);
                break;
            }
}

static void end_all(void)
{
    caller_gone = true;
    for (struct box *box = boxes; box != NULL; box = box->next)
        kill(box->init, SIGKILL);
}

static void caller_speaks(void)
{
    static char record[INLINE_PLAN] __attribute__((aligned(8)));
    int fds[MAX_PLAN_FDS], fd_count;
    ssize_t length = wire_receive(SBX_FD_SOCKET, record, sizeof record, fds, MAX_PLAN_FDS, &fd_count);
    uint32_t kind = 0;

    if (length <= 0) {
        if (length == 0 || errno != EMSGSIZE)
            end_all();
        return;
    }
    if (length >= (ssize_t)sizeof kind)
        memcpy(&kind, record, sizeof kind);
    if (kind == SBX_CREATE && fd_count >= 2) {
        create(record, (size_t)length, fds, fd_count);
        fault_disarm();
    }
#ifdef SBX_FAULTS
    else if (kind == SBX_FAULT && length == sizeof(struct sbx_fault))
        fault_arm((const struct sbx_fault *)record);
#endif
    else
        wire_close(fds, fd_count);
}

/* A caller says one thing on a status socket: that it wants the sandbox ended, in words or by closing its end. */
static void status_speaks(struct box *box)
{
    for (struct box *known = boxes; known != NULL; known = known->next)
        if (known == box) { /* it may have been reaped earlier in the same round of events */
            epoll_ctl(events, EPOLL_CTL_DEL, box->status, NULL);
            kill(box->init, SIGKILL);
            return;
        }
}

/* Onto the numbers this file knows them by. Out of the way first: any of them may already bear another's number. */
static int adopt_fds(char **numbers)
{
    int moved[3];

    for (int i = 0; i < 3; i++)
        if ((moved[i] = fcntl(atoi(numbers[i]), F_DUPFD, SBX_FD_ID_LOCK + 1)) < 0)
            return -1;
    for (int i = 0; i < 3; i++)
        if (dup2(moved[i], SBX_FD_SOCKET + i) < 0)
            return -1;
    return 0;
}

static int settle(void)
{
    sigset_t all;
    struct rlimit files;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    umask(0);
    prctl(PR_SET_NAME, "sandboxkit");
    k_close_range(SBX_FD_ID_LOCK + 1, ~0U);
    for (int fd = SBX_FD_SOCKET; fd <= SBX_FD_ID_LOCK; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* two fds per sandbox; root may go past the caller's limit */
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        files.rlim_cur = files.rlim_max = 1048576;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    sigemptyset(&all);
    sigaddset(&all, SIGCHLD);
    signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    events = epoll_create1(EPOLL_CLOEXEC);
    if (signals < 0 || events < 0 || watch(signals, &signals) < 0 || watch(SBX_FD_SOCKET, &boxes) < 0 ||
        watch(SBX_FD_CALLER, &caller_gone) < 0)
        return failed(SBX_STEP_LAUNCHER_START, -1);
    return 0;
}

/* argv: fd numbers of the socket, the caller's pidfd and the id lock, then the authority (authority.c) */
int main(int argc, char **argv)
{
    pid_t child = fork(); /* an orphan from here on: the caller's own waits never meet us */

    if (child != 0)
        _exit(child < 0 ? 1 : 0);
    if (argc < 5 || adopt_fds(argv + 1) < 0)
        return 1;
    report.index = -1;
    if (settle() < 0 || authority_acquire(&authority, argc - 4, argv + 4) < 0) {
        say(SBX_FD_SOCKET);
        return 1;
    }
    report.kind = SBX_READY;
    wire_send(SBX_FD_SOCKET, &report, sizeof report, NULL, 0);
    while (!caller_gone || boxes != NULL) {
        struct epoll_event ready[64];
        int count = epoll_wait(events, ready, SBX_LENGTH(ready), -1);
        for (int i = 0; i < count; i++) {
            void *what = ready[i].data.ptr;
            if (what == &signals)
                reap();
            else if (what == &caller_gone || (what == &boxes && caller_gone)) {
                end_all();
                epoll_ctl(events, EPOLL_CTL_DEL, what == &boxes ? SBX_FD_SOCKET : SBX_FD_CALLER, NULL);
            } else if (what == &boxes)
                caller_speaks();
            else
                status_speaks(what);
        }
    }
    return 0;
}
