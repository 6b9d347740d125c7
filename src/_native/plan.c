/* plan.c: checking a plan once, so that everybody after may trust its offsets. */
#include "internal.h"

static bool array_fits(const struct sbx_plan *plan, uint32_t offset, uint32_t count, size_t item)
{
    return count == 0 || (offset >= sizeof *plan && offset % 8 == 0 && offset <= plan->size &&
                          count <= (plan->size - offset) / item);
}

static bool string_fits(const struct sbx_plan *plan, uint32_t offset)
{
    return offset == 0 || (offset >= sizeof *plan && offset < plan->size); /* the last byte of a plan is NUL */
}

static bool ops_fit(const struct sbx_plan *plan)
{
    const struct sbx_op *ops = plan_array(plan, plan->ops);

    for (uint32_t i = 0; i < plan->op_count; i++) {
        if (!string_fits(plan, ops[i].source) || !string_fits(plan, ops[i].target) || !string_fits(plan, ops[i].data))
            return false;
        if (ops[i].data != 0 && ops[i].data_len > plan->size - ops[i].data)
            return false;
    }
    return true;
}

static bool cgroups_fit(const struct sbx_plan *plan)
{
    const struct sbx_cgroup *cgroups = plan_array(plan, plan->cgroups);
    const struct sbx_setting *settings = plan_array(plan, plan->settings);

    for (uint32_t i = 0; i < plan->cgroup_count; i++)
        if (cgroups[i].dir == 0 || !string_fits(plan, cgroups[i].dir))
            return false;
    for (uint32_t i = 0; i < plan->setting_count; i++)
        if (settings[i].cgroup >= plan->cgroup_count || settings[i].file == 0 || settings[i].value == 0 ||
            !string_fits(plan, settings[i].file) || !string_fits(plan, settings[i].value))
            return false;
    return true;
}

int plan_check(const void *data, size_t length)
{
    const struct sbx_plan *plan = data;

    errno = EINVAL;
    if (length < sizeof *plan || plan->kind != SBX_CREATE || plan->size != length || ((const char *)data)[length - 1] != 0)
        return -1;
    if (!array_fits(plan, plan->ops, plan->op_count, sizeof(struct sbx_op)) ||
        !array_fits(plan, plan->joins, plan->join_count, sizeof(struct sbx_join)) || plan->join_count > 8 ||
        !array_fits(plan, plan->cgroups, plan->cgroup_count, sizeof(struct sbx_cgroup)) ||
        !array_fits(plan, plan->settings, plan->setting_count, sizeof(struct sbx_setting)) ||
        !array_fits(plan, plan->groups, plan->group_count, sizeof(uint32_t)) ||
        !array_fits(plan, plan->seccomp, plan->seccomp_len, 1) || !string_fits(plan, plan->hostname))
        return -1;
    if (plan->uid >= SUPERVISOR_ID || plan->gid >= SUPERVISOR_ID || !ops_fit(plan) || !cgroups_fit(plan))
        return -1;
    errno = 0;
    return 0;
}

const char *plan_string(const struct sbx_plan *plan, uint32_t offset)
{
    return offset == 0 ? "" : (const char *)plan + offset;
}

const void *plan_array(const struct sbx_plan *plan, uint32_t offset)
{
    return (const char *)plan + offset;
}
