/* init.c: pid 1 of one sandbox, from its clone to the moment it serves.
 *
 * A fork of the launcher in new namespaces, with host (or launcher) authority until lock_down. The order is the design:
 * cgroup first, so that all that follows is charged; mounts and names while we may; the user namespace last, so that
 * nothing in the sandbox owns its mount or network namespace; the check of it all before the first command.
 */
#include "internal.h"

static int keep_own_fds(struct sandbox *sandbox)
{
    int keep[16], count = 0;

    keep[count++] = sandbox->control;
    keep[count++] = sandbox->status;
    keep[count++] = sandbox->userns;
    keep[count++] = sandbox->authority->self;
    for (uint32_t i = 0; i < sandbox->plan->join_count; i++)
        keep[count++] = sandbox->joins[i];
    return fds_close_except(keep, count);
}

static void close_joins(struct sandbox *sandbox)
{
    for (uint32_t i = 0; i < sandbox->plan->join_count; i++)
        close(sandbox->joins[i]);
}

static int set_up(struct sandbox *sandbox)
{
    if (keep_own_fds(sandbox) < 0)
        return failed(SBX_STEP_CLONE, -1);
    if (cgroup_join(sandbox) < 0 || namespaces_join(sandbox) < 0)
        return -1;
    if (root_build(sandbox) < 0 || root_enter(sandbox) < 0)
        return -1;
    if (namespaces_finish(sandbox) < 0)
        return -1;
    return lock_down(sandbox) < 0 ? -1 : attest(sandbox);
}

/* The caller learns that the sandbox stands; the upper directory goes along, for commit(). */
static int announce(struct sandbox *sandbox)
{
    struct sbx_report ready = { .kind = SBX_READY, .index = -1, .degraded = sandbox->degraded,
                                .id_base = sandbox->id_base };

    if (fault_at(SBX_STEP_READY) ||
        wire_send(sandbox->status, &ready, sizeof ready, &sandbox->upper, sandbox->upper >= 0) < 0)
        return failed(SBX_STEP_READY, -1);
    if (sandbox->upper >= 0)
        close(sandbox->upper);
    sandbox->upper = -1;
    return 0;
}

void init_main(struct sandbox *sandbox)
{
    if (set_up(sandbox) < 0 || announce(sandbox) < 0) {
        wire_send(sandbox->status, &report, sizeof report, NULL, 0);
        _exit(1);
    }
    close(sandbox->status);
    close_joins(sandbox);
    if (sandbox->userns >= 0)
        close(sandbox->userns);
    serve(sandbox);
}
