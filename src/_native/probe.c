/* probe.c: which system calls this kernel answers. Each is called so that it can do nothing: only ENOSYS is of interest,
 * or EPERM where a container's seccomp filter says that instead. */
#include <errno.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include "abi.h"
#include "kernel.h"

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

static int answered(long result)
{
    return result >= 0 || (errno != ENOSYS && errno != EPERM) ? 0 : -errno;
}

int sbx_probe(enum sbx_feature feature)
{
    uint32_t action = SECCOMP_RET_ERRNO;
    long abi;

    switch (feature) {
    case SBX_FEATURE_CLONE3:
        return answered(syscall(SYS_clone3, NULL, 0));
    case SBX_FEATURE_OPENAT2:
        return answered(syscall(SYS_openat2, -1, "", NULL, 0));
    case SBX_FEATURE_MOUNT_SETATTR:
        return answered(syscall(SYS_mount_setattr, -1, "", 0, NULL, 0));
    case SBX_FEATURE_CLOSE_RANGE:
        return answered(syscall(SYS_close_range, 2, 1, 0));
    case SBX_FEATURE_PIDFD:
        return answered(syscall(SYS_pidfd_open, -1, 0));
    case SBX_FEATURE_SECCOMP:
        return answered(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
    case SBX_FEATURE_LANDLOCK: /* LANDLOCK_CREATE_RULESET_VERSION: the ABI's number */
        abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
        return abi < 0 ? -errno : (int)abi;
    default:
        return -EINVAL;
    }
}
