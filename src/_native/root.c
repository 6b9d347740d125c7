/* root.c: the sandbox's root directory, built beside the old one and then put in its place.
 *
 * Everything is attached over "/": absolute paths still start at the old root's own directory underneath, so sources
 * are found as the caller named them, while the new tree is reached through a directory fd only.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "internal.h"

/* Nothing a path says may lead out of the new root (CVE-2021-30465, CVE-2023-27561 and their kin). */
int root_open(int root, const char *path, uint64_t flags)
{
    return k_openat2(root, *path == '/' && path[1] == '\0' ? "." : path, flags | O_CLOEXEC, 0,
                     K_RESOLVE_IN_ROOT | K_RESOLVE_NO_MAGICLINKS);
}

static int attach_over_root(int mount)
{
    int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (top < 0)
        return -1;
    int result = k_move_mount(mount, top);
    int error = errno;
    close(top);
    errno = error;
    return result;
}

/* A private tmpfs as working directory: the layers, the top and the overlay are mounted in it and vanish with it. */
static int make_stage(struct sandbox *sandbox)
{
    const struct sbx_op scratch = { .mode = 0700, .size = 1 << 20, .inodes = 4096 };
    int stage = fault_at(SBX_STEP_STAGE) ? -1 : mount_tmpfs(sandbox, &scratch);

    if (stage < 0 || attach_over_root(stage) < 0 || fchdir(stage) < 0)
        return failed(SBX_STEP_STAGE, -1);
    close(stage);
    return 0;
}

static int mount_in_stage(int mount, const char *name)
{
    if (mkdirat(AT_FDCWD, name, 0700) < 0)
        return -1;
    int target = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (target < 0)
        return -1;
    int result = k_move_mount(mount, target);
    int error = errno;
    close(target);
    errno = error;
    return result;
}

/* Files of an image belong to root and friends: shift them into the sandbox's id range where the file system can. */
static int shift_owners(struct sandbox *sandbox, int tree)
{
    const struct k_mount_attr attr = { .attr_set = K_MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)sandbox->userns };

    if (sandbox->userns < 0)
        return 0;
    if (k_mount_setattr(tree, 0, &attr) == 0)
        return 0;
    if (errno != EINVAL && errno != EPERM && errno != EOPNOTSUPP)
        return -1;
    sandbox->degraded |= SBX_DEGRADED_IDMAP; /* said in `.enforced`; the files then belong to nobody inside */
    return 0;
}

static int add_layer(struct sandbox *sandbox, const struct sbx_op *op, unsigned number)
{
    char name[16];
    int source = open(plan_string(sandbox->plan, op->source), O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (source < 0)
        return -1;
    int tree = k_open_tree(source, "", K_OPEN_TREE_CLONE | K_AT_EMPTY_PATH | O_CLOEXEC);
    close(source);
    if (tree < 0)
        return -1;
    snprintf(name, sizeof name, "%u", number);
    if (((op->flags & SBX_OP_IDMAP) && shift_owners(sandbox, tree) < 0) || mount_in_stage(tree, name) < 0)
        return -1;
    close(tree);
    return 0;
}

/* The upper directory becomes the root directory: it takes owner and mode from the topmost layer's. */
static int make_top(struct sandbox *sandbox, const struct sbx_op *op, unsigned layers)
{
    struct stat lower;
    char name[16];
    int top = mount_tmpfs(sandbox, op);

    snprintf(name, sizeof name, "%u", layers - 1);
    if (top < 0 || mount_in_stage(top, "top") < 0 || mkdir("top/upper", 0755) < 0 || mkdir("top/work", 0700) < 0)
        return -1;
    close(top);
    if (stat(name, &lower) < 0 || chmod("top/upper", lower.st_mode & 07777) < 0)
        return -1;
    /* EINVAL: an owner that has no id in our namespace; the top then stays ours, that is the sandbox user's. */
    if (chown("top/upper", lower.st_uid, lower.st_gid) < 0 && errno != EINVAL)
        return -1;
    sandbox->upper = open("top/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return sandbox->upper < 0 ? -1 : 0;
}

static int mount_overlay(struct sandbox *sandbox, const struct sbx_op *op, unsigned layers)
{
    char options[4096];
    int length = snprintf(options, sizeof options, "%sworkdir=top/work,upperdir=top/upper,lowerdir=",
                          sandbox->authority->root ? "" : "userxattr,");

    if (layers == 0) {
        errno = EINVAL;
        return -1;
    }
    for (unsigned i = layers; i-- > 0 && length < (int)sizeof options;) /* overlayfs wants the topmost first */
        length += snprintf(options + length, sizeof options - (size_t)length, i == 0 ? "%u" : "%u:", i);
    if (length >= (int)sizeof options) {
        errno = E2BIG;
        return -1;
    }
    if (make_top(sandbox, op, layers) < 0 || mkdir("root", 0700) < 0)
        return -1;
    if (mount("overlay", "root", "overlay", MS_NOSUID | MS_NODEV, options) < 0)
        return -1;
    sandbox->root = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return sandbox->root < 0 ? -1 : 0;
}

static int mount_empty(struct sandbox *sandbox, const struct sbx_op *op)
{
    sandbox->root = mount_tmpfs(sandbox, op);
    return sandbox->root < 0 ? -1 : attach_over_root(sandbox->root);
}

int root_build(struct sandbox *sandbox)
{
    const struct sbx_plan *plan = sandbox->plan;
    const struct sbx_op *ops = plan_array(plan, plan->ops);
    unsigned layers = 0;

    /* Before anything else: no mount made here may travel to the host. */
    if (fault_at(SBX_STEP_PROPAGATION) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return failed(SBX_STEP_PROPAGATION, -1);
    for (uint32_t i = 0; i < plan->op_count; i++) {
        int result = 0;
        if (ops[i].kind == SBX_OP_LAYER) {
            if (layers == 0 && make_stage(sandbox) < 0)
                return -1;
            if (fault_at(SBX_STEP_LAYER) || add_layer(sandbox, &ops[i], layers++) < 0)
                return failed(SBX_STEP_LAYER, (int)i);
        } else if (ops[i].kind == SBX_OP_ROOT_OVERLAY || ops[i].kind == SBX_OP_ROOT_TMPFS) {
            if (fault_at(SBX_STEP_ROOT) || (ops[i].kind == SBX_OP_ROOT_OVERLAY ? mount_overlay(sandbox, &ops[i], layers)
                                                                               : mount_empty(sandbox, &ops[i])) < 0)
                return failed(SBX_STEP_ROOT, (int)i);
        } else
            result = mount_op(sandbox, &ops[i], (int)i);
        if (result < 0)
            return -1;
    }
    return 0;
}

/* pivot_root(".", ".") leaves the old root stacked on the new one, and the stage, if there is one, stacked on that.
 * Counted, not tried until it fails: host root may detach the new root as well. attest.c checks that it stands alone. */
static int detach_old_root(const struct sandbox *sandbox)
{
    if (umount2(".", MNT_DETACH) < 0)
        return -1;
    return sandbox->upper >= 0 ? umount2(".", MNT_DETACH) : 0;
}

int root_enter(struct sandbox *sandbox)
{
    if (fault_at(SBX_STEP_PIVOT_ROOT) || fchdir(sandbox->root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        return failed(SBX_STEP_PIVOT_ROOT, -1);
    if (fault_at(SBX_STEP_DETACH_OLD_ROOT) || detach_old_root(sandbox) < 0)
        return failed(SBX_STEP_DETACH_OLD_ROOT, -1);
    if (fault_at(SBX_STEP_CHDIR_ROOT) || chdir("/") < 0)
        return failed(SBX_STEP_CHDIR_ROOT, -1);
    return 0;
}
