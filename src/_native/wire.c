/* wire.c: one datagram with file descriptors, out and in. */
#include <sys/socket.h>
#include <sys/uio.h>

#include "internal.h"

enum { MAX_FDS = 253 }; /* SCM_MAX_FD, include/net/scm.h */

void wire_close(int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static int take_fds(struct msghdr *message, int *fds, int max_fds, int *fd_count)
{
    bool too_many = false;

    *fd_count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        int count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + (size_t)i * sizeof(int), sizeof fd);
            if (*fd_count < max_fds)
                fds[(*fd_count)++] = fd;
            else {
                close(fd);
                too_many = true;
            }
        }
    }
    if (!too_many && (message->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
        return 0;
    wire_close(fds, *fd_count);
    *fd_count = 0;
    errno = EMSGSIZE;
    return -1;
}

/* The length of the record, 0 at EOF, -1 on failure. */
ssize_t wire_receive(int sock, void *data, size_t length, int *fds, int max_fds, int *fd_count)
{
    union { struct cmsghdr align; char space[CMSG_SPACE(MAX_FDS * sizeof(int))]; } control;
    struct iovec part = { .iov_base = data, .iov_len = length };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    ssize_t got;

    *fd_count = 0;
    do
        got = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got >= 0 && take_fds(&message, fds, max_fds, fd_count) < 0)
        return -1;
    return got;
}

int wire_send(int sock, const void *data, size_t length, const int *fds, int fd_count)
{
    union { struct cmsghdr align; char space[CMSG_SPACE(MAX_FDS * sizeof(int))]; } control;
    struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = length };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    ssize_t sent;

    if (fd_count > 0) {
        struct cmsghdr *c = &control.align;
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)fd_count * sizeof(int));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)fd_count * sizeof(int));
    }
    do
        sent = sendmsg(sock, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}
