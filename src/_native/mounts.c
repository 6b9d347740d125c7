/* mounts.c: the interpreter of the plan's file system operations, each onto a target inside the new root. */
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "internal.h"

/* A directory fd of the path's parent inside the root; *name is its last component. */
static int open_parent(int root, const char *path, const char **name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');

    *name = slash == NULL ? path : slash + 1;
    if (slash == NULL || slash == path)
        return root_open(root, ".", O_PATH | O_DIRECTORY);
    if ((size_t)(slash - path) >= sizeof parent) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = '\0';
    return root_open(root, parent, O_PATH | O_DIRECTORY);
}

static int make_one_dir(const struct sandbox *sandbox, const char *path, mode_t mode, uint32_t uid, uint32_t gid)
{
    const char *name;
    int parent = open_parent(sandbox->root, path, &name);

    if (parent < 0)
        return -1;
    int result = mkdirat(parent, name, mode);
    if (result == 0)
        result = fchownat(parent, name, identity_outer_uid(sandbox, uid), identity_outer_gid(sandbox, gid),
                          AT_SYMLINK_NOFOLLOW);
    else if (errno == EEXIST)
        result = 0; /* a directory, or a symlink to one: the next step that enters it finds out */
    int error = errno;
    close(parent);
    errno = error;
    return result;
}

/* mkdir -p: parents that are missing belong to the sandbox's root user and are open to all for reading. */
static int make_dirs(const struct sandbox *sandbox, const char *path, mode_t mode, uint32_t uid, uint32_t gid)
{
    char prefix[PATH_MAX];
    size_t length = strlen(path);

    if (length >= sizeof prefix) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int there = root_open(sandbox->root, path, O_PATH | O_DIRECTORY);
    if (there >= 0) {
        close(there);
        return 0;
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(prefix, path, i);
        prefix[i] = '\0';
        if (make_one_dir(sandbox, prefix, i == length ? mode : 0755, i == length ? uid : 0, i == length ? gid : 0) < 0)
            return -1;
    }
    return 0;
}

static int make_parents(const struct sandbox *sandbox, const char *path)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (slash == NULL || slash == path)
        return 0;
    if ((size_t)(slash - path) >= sizeof parent) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = '\0';
    return make_dirs(sandbox, parent, 0755, 0, 0);
}

/* Where something is to be mounted; what is missing is made: a directory, or an empty file. */
static int open_target(const struct sandbox *sandbox, const char *path, bool directory)
{
    const char *name;
    int target = root_open(sandbox->root, path, O_PATH);

    if (target >= 0 || errno != ENOENT)
        return target;
    if (directory) {
        if (make_dirs(sandbox, path, 0755, 0, 0) < 0)
            return -1;
        return root_open(sandbox->root, path, O_PATH);
    }
    if (make_parents(sandbox, path) < 0)
        return -1;
    int parent = open_parent(sandbox->root, path, &name);
    if (parent < 0)
        return -1;
    int file = openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
    int error = errno;
    close(parent);
    if (file >= 0)
        close(file);
    errno = error;
    return file < 0 ? -1 : root_open(sandbox->root, path, O_PATH);
}

static int attach(const struct sandbox *sandbox, int mount, const char *path, bool directory, int index, enum sbx_step step)
{
    int target = fault_at(SBX_STEP_TARGET) ? -1 : open_target(sandbox, path, directory);

    if (target < 0)
        return failed(SBX_STEP_TARGET, index);
    int result = k_move_mount(mount, target);
    if (result < 0)
        failed(step, index);
    close(target);
    return result;
}

/* A detached tmpfs of the op's size, inodes, mode and owner. */
int mount_tmpfs(const struct sandbox *sandbox, const struct sbx_op *op)
{
    char size[24], inodes[24], mode[16], uid[16], gid[16];
    int fs = k_fsopen("tmpfs"), mount = -1;

    snprintf(size, sizeof size, "%llu", (unsigned long long)op->size);
    snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)op->inodes);
    snprintf(mode, sizeof mode, "%o", op->mode);
    snprintf(uid, sizeof uid, "%u", identity_outer_uid(sandbox, op->uid));
    snprintf(gid, sizeof gid, "%u", identity_outer_gid(sandbox, op->gid));
    if (fs < 0)
        return -1;
    if (k_fsconfig_string(fs, "size", size) == 0 && k_fsconfig_string(fs, "nr_inodes", inodes) == 0 &&
        k_fsconfig_string(fs, "mode", mode) == 0 && k_fsconfig_string(fs, "uid", uid) == 0 &&
        k_fsconfig_string(fs, "gid", gid) == 0 && k_fsconfig_create(fs) == 0)
        mount = k_fsmount(fs, K_MOUNT_ATTR_NOSUID | K_MOUNT_ATTR_NODEV |
                                  (op->flags & SBX_OP_NOEXEC ? K_MOUNT_ATTR_NOEXEC : 0));
    int error = errno;
    close(fs);
    errno = error;
    return mount;
}

static int op_tmpfs(struct sandbox *sandbox, const struct sbx_op *op, int index)
{
    int mount = fault_at(SBX_STEP_TMPFS) ? -1 : mount_tmpfs(sandbox, op);

    if (mount < 0)
        return failed(SBX_STEP_TMPFS, index);
    int result = attach(sandbox, mount, plan_string(sandbox->plan, op->target), true, index, SBX_STEP_TMPFS);
    close(mount);
    return result;
}

/* The new procfs shows the pid namespace init is already in. It is also kept open: attestation and keepers read it. */
static int op_proc(struct sandbox *sandbox, const struct sbx_op *op, int index)
{
    int fs = fault_at(SBX_STEP_PROC) ? -1 : k_fsopen("proc"), mount = -1;

    if (fs >= 0 && k_fsconfig_create(fs) == 0)
        mount = k_fsmount(fs, K_MOUNT_ATTR_NOSUID | K_MOUNT_ATTR_NODEV | K_MOUNT_ATTR_NOEXEC);
    if (mount < 0)
        failed(SBX_STEP_PROC, index);
    if (fs >= 0)
        close(fs);
    if (mount < 0)
        return -1;
    sandbox->proc = mount;
    return attach(sandbox, mount, plan_string(sandbox->plan, op->target), true, index, SBX_STEP_PROC);
}

/* The source is opened once and compared with what the caller saw, then only the fd is used (CVE-2024-42472). */
static int open_source(const struct sandbox *sandbox, const struct sbx_op *op, bool *directory)
{
    struct stat info;
    int source = open(plan_string(sandbox->plan, op->source), O_PATH | O_CLOEXEC);

    if (source < 0)
        return -1;
    if (fstat(source, &info) == 0) {
        *directory = S_ISDIR(info.st_mode);
        if (op->ino == 0 || (info.st_dev == op->dev && info.st_ino == op->ino))
            return source;
        errno = ESTALE;
    }
    int error = errno;
    close(source);
    errno = error;
    return -1;
}

static int op_bind(struct sandbox *sandbox, const struct sbx_op *op, int index)
{
    const unsigned recursive = op->flags & SBX_OP_RECURSIVE ? K_AT_RECURSIVE : 0;
    const struct k_mount_attr attr = {
        .attr_set = K_MOUNT_ATTR_NOSUID | (op->flags & SBX_OP_DEVICE ? 0U : K_MOUNT_ATTR_NODEV) |
                    (op->flags & SBX_OP_RDONLY ? K_MOUNT_ATTR_RDONLY : 0U) |
                    (op->flags & SBX_OP_NOEXEC ? K_MOUNT_ATTR_NOEXEC : 0U),
    };
    bool directory = false;
    int source = fault_at(SBX_STEP_BIND_SOURCE) ? -1 : open_source(sandbox, op, &directory);

    if (source < 0)
        return failed(SBX_STEP_BIND_SOURCE, index);
    int tree = fault_at(SBX_STEP_BIND) ? -1
             : k_open_tree(source, "", K_OPEN_TREE_CLONE | K_AT_EMPTY_PATH | O_CLOEXEC | recursive);
    if (tree < 0)
        failed(SBX_STEP_BIND, index);
    close(source);
    if (tree < 0)
        return -1;
    int result = k_mount_setattr(tree, recursive, &attr);
    if (result < 0)
        failed(SBX_STEP_BIND, index);
    else
        result = attach(sandbox, tree, plan_string(sandbox->plan, op->target), directory, index, SBX_STEP_BIND);
    close(tree);
    return result;
}

static int write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, data, length);
        if (written < 0)
            return -1;
        data += written;
        length -= (size_t)written;
    }
    return 0;
}

/* What stands at the path gives way, as long as it is not a directory. */
static int make_file(const struct sandbox *sandbox, const struct sbx_op *op)
{
    const char *name, *path = plan_string(sandbox->plan, op->target);

    if (make_parents(sandbox, path) < 0)
        return -1;
    int parent = open_parent(sandbox->root, path, &name);
    if (parent < 0)
        return -1;
    unlinkat(parent, name, 0);
    int file = openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, op->mode);
    int result = file < 0 ? -1 : write_all(file, plan_string(sandbox->plan, op->data), op->data_len);
    if (result == 0)
        result = fchown(file, identity_outer_uid(sandbox, op->uid), identity_outer_gid(sandbox, op->gid));
    int error = errno;
    if (file >= 0)
        close(file);
    close(parent);
    errno = error;
    return result;
}

static int make_symlink(const struct sandbox *sandbox, const struct sbx_op *op)
{
    const char *name, *path = plan_string(sandbox->plan, op->target);

    if (make_parents(sandbox, path) < 0)
        return -1;
    int parent = open_parent(sandbox->root, path, &name);
    if (parent < 0)
        return -1;
    unlinkat(parent, name, 0);
    int result = symlinkat(plan_string(sandbox->plan, op->data), parent, name);
    if (result == 0)
        result = fchownat(parent, name, identity_outer_uid(sandbox, op->uid), identity_outer_gid(sandbox, op->gid),
                          AT_SYMLINK_NOFOLLOW);
    int error = errno;
    close(parent);
    errno = error;
    return result;
}

static int make_readonly(const struct sandbox *sandbox, const struct sbx_op *op)
{
    const struct k_mount_attr attr = { .attr_set = K_MOUNT_ATTR_RDONLY };
    int target = root_open(sandbox->root, plan_string(sandbox->plan, op->target), O_PATH);

    if (target < 0)
        return -1;
    int result = k_mount_setattr(target, 0, &attr);
    int error = errno;
    close(target);
    errno = error;
    return result;
}

int mount_op(struct sandbox *sandbox, const struct sbx_op *op, int index)
{
    switch (op->kind) {
    case SBX_OP_DIR:
        if (fault_at(SBX_STEP_MKDIR) ||
            make_dirs(sandbox, plan_string(sandbox->plan, op->target), op->mode, op->uid, op->gid) < 0)
            return failed(SBX_STEP_MKDIR, index);
        return 0;
    case SBX_OP_FILE:
        return fault_at(SBX_STEP_FILE) || make_file(sandbox, op) < 0 ? failed(SBX_STEP_FILE, index) : 0;
    case SBX_OP_SYMLINK:
        return fault_at(SBX_STEP_SYMLINK) || make_symlink(sandbox, op) < 0 ? failed(SBX_STEP_SYMLINK, index) : 0;
    case SBX_OP_READONLY:
        return fault_at(SBX_STEP_REMOUNT) || make_readonly(sandbox, op) < 0 ? failed(SBX_STEP_REMOUNT, index) : 0;
    case SBX_OP_BIND:
        return op_bind(sandbox, op, index);
    case SBX_OP_TMPFS:
        return op_tmpfs(sandbox, op, index);
    case SBX_OP_PROC:
        return op_proc(sandbox, op, index);
    default:
        errno = EINVAL;
        return failed(SBX_STEP_PLAN, index);
    }
}
