/* lockdown.c: init gives up all power, in an order in which no later step needs what an earlier one gave away. */
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>

#include "internal.h"

enum {
    ALL_SECUREBITS = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
                     SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
};

/* Last of all namespaces: whoever is root inside owns none of the others. */
static int enter_userns(const struct sandbox *sandbox)
{
    const struct sbx_join *joins = plan_array(sandbox->plan, sandbox->plan->joins);
    int userns = sandbox->userns;

    for (uint32_t i = 0; i < sandbox->plan->join_count; i++)
        if (joins[i].nstype == CLONE_NEWUSER)
            userns = sandbox->joins[i];
    if (userns < 0)
        return 0;
    return fault_at(SBX_STEP_USERNS_ENTER) || setns(userns, CLONE_NEWUSER) < 0 ? failed(SBX_STEP_USERNS_ENTER, -1) : 0;
}

static int drop_bounding_set(void)
{
    if (fault_at(SBX_STEP_CAP_BOUNDING))
        return failed(SBX_STEP_CAP_BOUNDING, -1);
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability) < 0)
            return failed(SBX_STEP_CAP_BOUNDING, capability);
    if (fault_at(SBX_STEP_SECUREBITS) || prctl(PR_SET_SECUREBITS, ALL_SECUREBITS) < 0)
        return failed(SBX_STEP_SECUREBITS, -1);
    return 0;
}

/* In a single-id namespace setgroups is denied for good: the caller's supplementary groups stay, and are reported. */
static int set_groups(struct sandbox *sandbox)
{
    const uint32_t *groups = plan_array(sandbox->plan, sandbox->plan->groups);

    if (identity_has_supervisor(sandbox))
        return setgroups(sandbox->plan->group_count, groups);
    if (getgroups(0, NULL) > 0)
        sandbox->degraded |= SBX_DEGRADED_GROUPS;
    return 0;
}

static int become_user(struct sandbox *sandbox)
{
    const bool mapped = (sandbox->plan->flags & SBX_PLAN_USERNS) != 0;
    const uint32_t base = mapped ? 0 : sandbox->id_base; /* without a user namespace the host ids are the ids */
    const uint32_t uid = base + sandbox->plan->uid, gid = base + sandbox->plan->gid;
    const uint32_t supervisor = identity_has_supervisor(sandbox) ? base + SUPERVISOR_ID : uid;

    if (fault_at(SBX_STEP_SETGROUPS) || set_groups(sandbox) < 0)
        return failed(SBX_STEP_SETGROUPS, -1);
    if (fault_at(SBX_STEP_SETGID) || setresgid(gid, gid, gid) < 0)
        return failed(SBX_STEP_SETGID, -1);
    if (fault_at(SBX_STEP_SETUID) || setresuid(supervisor, uid, supervisor) < 0)
        return failed(SBX_STEP_SETUID, -1);
    return 0;
}

static int clear_capabilities(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    const struct __user_cap_data_struct none[2] = { 0 };

    if (fault_at(SBX_STEP_CAP_CLEAR) || syscall(SYS_capset, &header, none) < 0)
        return failed(SBX_STEP_CAP_CLEAR, -1);
    return 0;
}

static int load_filter(const struct sbx_plan *plan)
{
    struct sock_fprog program = {
        .len = (unsigned short)(plan->seccomp_len / sizeof(struct sock_filter)),
        .filter = (struct sock_filter *)(uintptr_t)plan_array(plan, plan->seccomp),
    };

    if (plan->seccomp_len == 0)
        return 0;
    if (fault_at(SBX_STEP_SECCOMP) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return failed(SBX_STEP_SECCOMP, -1);
    return 0;
}

/* Armed after the last change of credentials, which would clear it; then the race: is the launcher still there? */
static int die_with_launcher(const struct sandbox *sandbox)
{
    struct pollfd launcher = { .fd = sandbox->authority->self, .events = POLLIN };

    if (fault_at(SBX_STEP_PDEATHSIG) || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return failed(SBX_STEP_PDEATHSIG, -1);
    if (poll(&launcher, 1, 0) != 0) {
        errno = ESRCH;
        return failed(SBX_STEP_PDEATHSIG, -1);
    }
    close(launcher.fd);
    return 0;
}

int lock_down(struct sandbox *sandbox)
{
    if (enter_userns(sandbox) < 0 || drop_bounding_set() < 0 || become_user(sandbox) < 0 || clear_capabilities() < 0)
        return -1;
    if (fault_at(SBX_STEP_NO_NEW_PRIVS) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return failed(SBX_STEP_NO_NEW_PRIVS, -1);
    if (load_filter(sandbox->plan) < 0)
        return -1;
    if (fault_at(SBX_STEP_DUMPABLE) || prctl(PR_SET_DUMPABLE, 0) < 0)
        return failed(SBX_STEP_DUMPABLE, -1);
    return die_with_launcher(sandbox);
}
