/* client.c: the caller's side, in the extension module. No Python object is touched here and nothing calls back:
 * cffi releases the GIL around every function. A signal ends a blocking call with -EINTR so that Python can run its
 * handlers and call again. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "abi.h"
#include "kernel.h"

enum {
    MAX_FDS = 253,          /* SCM_MAX_FD, include/net/scm.h */
    FIRST_CAPACITY = 65536, /* what a pipe holds by default */
    SCRATCH_SIZE = 16384    /* on the stack of a caller's thread, so not more */
};

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* Linux 6.3 */
#endif

static const int64_t NS_PER_S = 1000000000;

union fd_space { struct cmsghdr align; char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))]; };

/* ---- one record, out and in ---- */

static int send_record(int sock, const void *data, size_t len, const int *fds, int fd_count, int flags)
{
    union fd_space space;
    struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

    if (fd_count < 0 || fd_count > MAX_FDS)
        return -EINVAL;
    if (fd_count > 0) {
        memset(&space, 0, sizeof space);
        space.align.cmsg_level = SOL_SOCKET;
        space.align.cmsg_type = SCM_RIGHTS;
        space.align.cmsg_len = CMSG_LEN((size_t)fd_count * sizeof(int));
        memcpy(CMSG_DATA(&space.align), fds, (size_t)fd_count * sizeof(int));
        message.msg_control = &space;
        message.msg_controllen = CMSG_SPACE((size_t)fd_count * sizeof(int));
    }
    return sendmsg(sock, &message, MSG_NOSIGNAL | flags) < 0 ? -errno : 0;
}

/* Takes the passed fds out of `message`; closes those that do not fit. */
static int take_fds(struct msghdr *message, int *fds, int max_fds)
{
    int taken = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (taken < max_fds)
                fds[taken++] = fd;
            else
                close(fd);
        }
    }
    return taken;
}

static int receive_record(int sock, void *data, size_t len, int *fds, int max_fds, int *fd_count, int flags)
{
    union fd_space space;
    struct iovec part = { .iov_base = data, .iov_len = len };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof space };
    ssize_t got;

    *fd_count = 0;
    /* A peer that went with records of ours unread leaves one ECONNRESET in front of what it had sent. */
    do
        got = recvmsg(sock, &message, MSG_CMSG_CLOEXEC | flags);
    while (got < 0 && errno == ECONNRESET);
    if (got < 0)
        return -errno;
    *fd_count = take_fds(&message, fds, max_fds);
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
        return (int)got;
    while (*fd_count > 0)
        close(fds[--*fd_count]);
    return -EMSGSIZE;
}

int sbx_send(int sock, const void *data, size_t len, const int *fds, int fd_count)
{
    return send_record(sock, data, len, fds, fd_count, 0);
}

int sbx_receive(int sock, void *data, size_t len, int *fds, int max_fds, int *fd_count, int timeout_ms)
{
    struct pollfd waiting = { .fd = sock, .events = POLLIN };

    *fd_count = 0;
    for (;;) {
        int ready = poll(&waiting, 1, timeout_ms < 0 ? -1 : timeout_ms);
        if (ready < 0)
            return -errno;
        if (ready == 0)
            return -ETIMEDOUT;
        int got = receive_record(sock, data, len, fds, max_fds, fd_count, MSG_DONTWAIT);
        if (got != -EAGAIN) /* another thread may have taken it */
            return got;
    }
}

/* ---- single system calls that Python lacks ---- */

int sbx_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    int fd = k_openat2(dirfd, path, flags, mode, resolve);
    return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t wrote = write(fd, data, len);
        if (wrote < 0 && errno != EINTR)
            return -errno;
        if (wrote > 0) {
            data += wrote;
            len -= (size_t)wrote;
        }
    }
    return 0;
}

int sbx_sealed_memfd(const char *name, const void *data, size_t len)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int status = write_all(fd, data, len);
    if (status == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        status = -errno;
    if (status == 0 && lseek(fd, 0, SEEK_SET) < 0)
        status = -errno;
    if (status == 0)
        return fd;
    close(fd);
    return status;
}

/* ---- waiting for a run ---- */

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static int make_nonblocking(int fd)
{
    if (fd < 0)
        return 0;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    if ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

/* The first order stands. Failing to send it is no error of its own: the peer is gone, which is then seen as EOF,
 * or it is stuck, which is then seen at the end of the grace. */
static void order_kill(struct sbx_wait *wait, enum sbx_cause cause)
{
    struct sbx_order order = { .kind = SBX_KILL, .value = (int32_t)cause };

    if (wait->order_sent != 0 || wait->exited)
        return;
    wait->order_sent = (int)cause;
    wait->order_ns = now_ns();
    if (wait->reply >= 0)
        send_record(wait->reply, &order, sizeof order, NULL, 0, MSG_DONTWAIT);
}

static int take_reply(struct sbx_wait *wait)
{
    union { uint32_t kind; struct sbx_exit exit; struct sbx_report report; } record;
    int pidfd, fd_count;

    memset(&record, 0, sizeof record);
    int got = receive_record(wait->reply, &record, sizeof record, &pidfd, 1, &fd_count, MSG_DONTWAIT);
    if (got == -EAGAIN || got == -EINTR)
        return 0;
    if (got < 0)
        return got;
    if (fd_count > 0)
        close(pidfd);
    if (got == 0)
        wait->reply = -1;
    else if (record.kind == SBX_EXITED && (size_t)got >= sizeof record.exit) {
        wait->exit = record.exit;
        wait->exited = 1;
    } else if (record.kind == SBX_FAILED && (size_t)got >= sizeof record.report)
        wait->failed = record.report;
    return 0;
}

/* write(2) without the SIGPIPE: pipes know no MSG_NOSIGNAL. Returns -errno on failure. */
static ssize_t write_quietly(int fd, const char *data, size_t len)
{
    sigset_t pipe_signal, pending, before;
    const struct timespec at_once = { 0, 0 };

    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigemptyset(&pending);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t wrote = write(fd, data, len);
    ssize_t result = wrote < 0 ? -errno : wrote;
    if (result == -EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe_signal, NULL, &at_once) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

static void close_input(struct sbx_wait *wait)
{
    close(wait->stdin_fd);
    wait->stdin_fd = -1;
}

/* A program that does not want its input (EPIPE, or EIO from a terminal) is no failure of the run. */
static int feed_input(struct sbx_wait *wait)
{
    ssize_t wrote = 0;

    if (wait->input_done < wait->input_len)
        wrote = write_quietly(wait->stdin_fd, wait->input + wait->input_done, wait->input_len - wait->input_done);
    if (wrote == -EAGAIN || wrote == -EINTR)
        return 0;
    if (wrote == -EPIPE || wrote == -EIO) {
        close_input(wait);
        return 0;
    }
    if (wrote < 0)
        return (int)wrote;
    wait->input_done += (size_t)wrote;
    if (wait->input_done == wait->input_len)
        close_input(wait);
    return 0;
}

static int make_room(struct sbx_stream *stream)
{
    if (stream->len < stream->capacity || stream->capacity >= stream->keep)
        return 0;
    size_t capacity = stream->capacity < FIRST_CAPACITY / 2 ? FIRST_CAPACITY : stream->capacity * 2;
    if (capacity > stream->keep || capacity < stream->capacity)
        capacity = stream->keep;
    char *data = realloc(stream->data, capacity);
    if (data == NULL)
        return -ENOMEM;
    stream->data = data;
    stream->capacity = capacity;
    return 0;
}

/* One read: into the room there is, and what comes beyond that into a buffer nobody looks at.
 * Returns how much was read; 0 at EOF, then `fd` is given up (not closed: the caller owns it). */
static ssize_t fill_stream(struct sbx_stream *stream)
{
    char scratch[SCRATCH_SIZE];
    int status = make_room(stream);
    if (status < 0)
        return status;
    size_t room = stream->capacity - stream->len;
    bool full = stream->capacity >= stream->keep; /* otherwise the next read makes more room */
    struct iovec parts[2] = {
        { .iov_base = room > 0 ? stream->data + stream->len : scratch, .iov_len = room },
        { .iov_base = scratch, .iov_len = sizeof scratch },
    };
    ssize_t got = readv(stream->fd, parts, full ? 2 : 1);
    if (got < 0 && errno != EIO) /* EIO: the other side of the terminal is closed */
        return -errno;
    if (got <= 0) {
        stream->fd = -1;
        return 0;
    }
    stream->overflowed |= (size_t)got > room;
    stream->len += (size_t)got > room ? room : (size_t)got;
    return got;
}

static int take_output(struct sbx_wait *wait, struct sbx_stream *stream)
{
    ssize_t got = fill_stream(stream);

    if (got < 0 && got != -EAGAIN && got != -EINTR)
        return (int)got;
    if (stream->overflowed && wait->kill_on_overflow)
        order_kill(wait, SBX_CAUSE_OUTPUT);
    return 0;
}

/* What is in the pipe now, and never more than it can hold: somebody may still be writing. */
static int drain_stream(struct sbx_stream *stream)
{
    if (stream->fd < 0)
        return 0;
    ssize_t left = fcntl(stream->fd, F_GETPIPE_SZ);
    if (left < 0)
        left = FIRST_CAPACITY; /* a terminal: holds less */
    while (left > 0 && stream->fd >= 0) {
        ssize_t got = fill_stream(stream);
        if (got == -EAGAIN)
            return 0;
        if (got < 0 && got != -EINTR)
            return (int)got;
        left -= got > 0 ? got : 0;
    }
    return 0;
}

static int finish(struct sbx_wait *wait)
{
    int status = drain_stream(&wait->out);
    return status < 0 ? status : drain_stream(&wait->err);
}

static bool is_finished(const struct sbx_wait *wait)
{
    if (wait->failed.kind == SBX_FAILED || wait->reply < 0) /* never started, or everything of it is gone */
        return true;
    return wait->exited && (!wait->until_eof || (wait->out.fd < 0 && wait->err.fd < 0));
}

/* The time at which something is due, or -1. */
static int64_t next_due(const struct sbx_wait *wait)
{
    return wait->order_sent != 0 ? wait->order_ns + wait->grace_ns : wait->deadline_ns;
}

/* 0: go on. 1: finish with what there is. Otherwise what sbx_wait returns. */
static int check_due(struct sbx_wait *wait)
{
    int64_t due = next_due(wait);

    if (due < 0 || now_ns() < due)
        return 0;
    if (wait->order_sent != 0)
        return wait->exited ? 1 : -ETIME;
    if (!wait->deadline_kills)
        return -ETIMEDOUT;
    if (wait->exited)
        return 1;
    order_kill(wait, SBX_CAUSE_WALL);
    return 0;
}

enum { REPLY, INPUT, OUT, ERR, POLLED };

static int await_events(const struct sbx_wait *wait, struct pollfd *polled)
{
    int64_t due = next_due(wait), left = due < 0 ? 0 : due - now_ns();
    if (left < 0)
        left = 0;
    struct timespec timeout = { .tv_sec = left / NS_PER_S, .tv_nsec = left % NS_PER_S };

    polled[REPLY] = (struct pollfd){ .fd = wait->reply, .events = POLLIN };
    polled[INPUT] = (struct pollfd){ .fd = wait->stdin_fd, .events = POLLOUT };
    polled[OUT] = (struct pollfd){ .fd = wait->out.fd, .events = POLLIN };
    polled[ERR] = (struct pollfd){ .fd = wait->err.fd, .events = POLLIN };
    return ppoll(polled, POLLED, due < 0 ? NULL : &timeout, NULL) < 0 ? -errno : 0;
}

static int handle_events(struct sbx_wait *wait, const struct pollfd *polled)
{
    int status = 0;

    if (polled[INPUT].revents != 0)
        status = feed_input(wait);
    if (status == 0 && polled[OUT].revents != 0)
        status = take_output(wait, &wait->out);
    if (status == 0 && polled[ERR].revents != 0)
        status = take_output(wait, &wait->err);
    if (status == 0 && polled[REPLY].revents != 0)
        status = take_reply(wait);
    return status;
}

static int prepare(const struct sbx_wait *wait)
{
    const int fds[] = { wait->stdin_fd, wait->out.fd, wait->err.fd };
    int status = 0;

    for (size_t i = 0; i < sizeof fds / sizeof fds[0] && status == 0; i++)
        status = make_nonblocking(fds[i]);
    return status;
}

int sbx_wait(struct sbx_wait *wait)
{
    struct pollfd polled[POLLED];
    int status = prepare(wait);

    while (status == 0 && !is_finished(wait)) {
        status = await_events(wait, polled);
        if (status == 0)
            status = handle_events(wait, polled);
        if (status == 0 && !is_finished(wait))
            status = check_due(wait);
    }
    return status < 0 ? status : finish(wait);
}

void sbx_stream_free(struct sbx_stream *stream)
{
    free(stream->data);
    stream->data = NULL;
    stream->len = stream->capacity = 0;
}
