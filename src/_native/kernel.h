/* kernel.h: system calls and constants that the oldest libc we build with does not have. */
#ifndef SANDBOXKIT_KERNEL_H
#define SANDBOXKIT_KERNEL_H

#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

/* <sys/mount.h> and <linux/mount.h> cannot be included together on every libc, hence our own names. */
enum {
    K_OPEN_TREE_CLONE = 1, K_AT_RECURSIVE = 0x8000, K_AT_EMPTY_PATH = 0x1000,
    K_MOVE_MOUNT_F_EMPTY_PATH = 0x4, K_MOVE_MOUNT_T_EMPTY_PATH = 0x40,
    K_FSOPEN_CLOEXEC = 1, K_FSMOUNT_CLOEXEC = 1,
    K_FSCONFIG_SET_STRING = 1, K_FSCONFIG_CMD_CREATE = 6,
    K_MOUNT_ATTR_RDONLY = 0x1, K_MOUNT_ATTR_NOSUID = 0x2, K_MOUNT_ATTR_NODEV = 0x4, K_MOUNT_ATTR_NOEXEC = 0x8,
    K_MOUNT_ATTR_IDMAP = 0x100000,
    K_RESOLVE_NO_MAGICLINKS = 0x2, K_RESOLVE_IN_ROOT = 0x10
};
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif

struct k_open_how { uint64_t flags, mode, resolve; };
struct k_mount_attr { uint64_t attr_set, attr_clr, propagation, userns_fd; };

static inline int k_openat2(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct k_open_how how = { .flags = flags, .mode = mode, .resolve = resolve };
    return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}
static inline int k_open_tree(int dir, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, dir, path, flags);
}
static inline int k_move_mount(int from, int to)
{
    return (int)syscall(SYS_move_mount, from, "", to, "", K_MOVE_MOUNT_F_EMPTY_PATH | K_MOVE_MOUNT_T_EMPTY_PATH);
}
static inline int k_fsopen(const char *type) { return (int)syscall(SYS_fsopen, type, K_FSOPEN_CLOEXEC); }
static inline int k_fsconfig_string(int fs, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, fs, K_FSCONFIG_SET_STRING, key, value, 0);
}
static inline int k_fsconfig_create(int fs) { return (int)syscall(SYS_fsconfig, fs, K_FSCONFIG_CMD_CREATE, 0, 0, 0); }
static inline int k_fsmount(int fs, unsigned attributes)
{
    return (int)syscall(SYS_fsmount, fs, K_FSMOUNT_CLOEXEC, attributes);
}
static inline int k_mount_setattr(int mount, unsigned flags, const struct k_mount_attr *attr)
{
    return (int)syscall(SYS_mount_setattr, mount, "", K_AT_EMPTY_PATH | flags, attr, sizeof *attr);
}
static inline int k_pidfd_open(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
static inline int k_close_range(unsigned first, unsigned last) { return (int)syscall(SYS_close_range, first, last, 0); }

#endif
