/* files.c: the few operations behind `Sandbox.files`, with the identity and the view of the sandbox's user. */
#include <limits.h>
#include <sys/stat.h>

#include "internal.h"

/* The directory that holds the path's last component, resolved inside the root. */
static int open_holder(const char *path, const char **name)
{
    char holder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path);

    *name = slash == NULL ? path : slash + 1;
    if (length >= sizeof holder) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(holder, path, length);
    holder[length] = '\0';
    return root_open(AT_FDCWD, length == 0 ? "/" : holder, O_PATH | O_DIRECTORY);
}

static int change(const char *path, const struct sbx_file *request)
{
    const char *name;
    int holder = open_holder(path, &name);

    if (holder < 0)
        return -1;
    int result = request->verb == SBX_FILE_MKDIR ? mkdirat(holder, name, request->mode & 07777)
                                                 : unlinkat(holder, name, request->flags & AT_REMOVEDIR);
    int error = errno;
    close(holder);
    errno = error;
    return result;
}

/* Never blocks on a FIFO or a terminal, never becomes anybody's controlling terminal. */
static int open_file(const char *path, const struct sbx_file *request)
{
    const int flags = request->flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    const uint64_t kept = flags & O_PATH ? (uint64_t)(flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC))
                                         : (uint64_t)flags;

    return k_openat2(AT_FDCWD, path, kept, flags & O_CREAT ? request->mode & 07777 : 0,
                     K_RESOLVE_IN_ROOT | K_RESOLVE_NO_MAGICLINKS);
}

void file_request(const struct sandbox *sandbox, const void *record, size_t length, int reply)
{
    struct sbx_report done = { .kind = SBX_FILE_DONE, .index = -1 };
    const struct sbx_file *request = record;
    const char *path = (const char *)(request + 1);
    int fd = -1, result = -1;

    (void)sandbox;
    errno = EINVAL;
    if (length > sizeof *request && ((const char *)record)[length - 1] == '\0') {
        if (request->verb == SBX_FILE_OPEN)
            result = fd = open_file(path, request);
        else if (request->verb == SBX_FILE_MKDIR || request->verb == SBX_FILE_REMOVE)
            result = change(path, request);
    }
    done.error = result < 0 ? errno : 0;
    wire_send(reply, &done, sizeof done, &fd, fd >= 0);
    if (fd >= 0)
        close(fd);
}
