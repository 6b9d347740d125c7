/* cgroup.c: the cgroup directories of one sandbox. Where they stand and what is written into them is the plan's. */
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "internal.h"

static int write_in(const char *dir, const char *file, const char *value)
{
    char path[4096];

    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return identity_write_file(path, value);
}

int cgroup_create(const struct sbx_plan *plan)
{
    const struct sbx_cgroup *cgroups = plan_array(plan, plan->cgroups);
    const struct sbx_setting *settings = plan_array(plan, plan->settings);

    for (uint32_t i = 0; i < plan->cgroup_count; i++)
        if (fault_at(SBX_STEP_CGROUP_CREATE) || mkdir(plan_string(plan, cgroups[i].dir), 0755) < 0)
            return failed(SBX_STEP_CGROUP_CREATE, (int)i);
    for (uint32_t i = 0; i < plan->setting_count; i++)
        if (fault_at(SBX_STEP_CGROUP_LIMIT) ||
            write_in(plan_string(plan, cgroups[settings[i].cgroup].dir), plan_string(plan, settings[i].file),
                     plan_string(plan, settings[i].value)) < 0)
            return failed(SBX_STEP_CGROUP_LIMIT, (int)i);
    return 0;
}

/* All tasks are gone by now, but the kernel may lag behind for a moment: EBUSY is retried, for at most a second. */
void cgroup_remove(const struct sbx_plan *plan)
{
    const struct sbx_cgroup *cgroups = plan_array(plan, plan->cgroups);
    const struct timespec pause = { .tv_nsec = 1000000 };

    for (uint32_t i = plan->cgroup_count; i-- > 0;)
        for (int tries = 0; tries < 1000 && rmdir(plan_string(plan, cgroups[i].dir)) < 0 && errno == EBUSY; tries++)
            nanosleep(&pause, NULL);
}

/* Writing 0 into `tasks` moves the writing thread alone and spares the wait for a grace period that `cgroup.procs` has. */
int cgroup_join(const struct sandbox *sandbox)
{
    const struct sbx_cgroup *cgroups = plan_array(sandbox->plan, sandbox->plan->cgroups);

    for (uint32_t i = 0; i < sandbox->plan->cgroup_count; i++) {
        const char *file = cgroups[i].flags & SBX_CGROUP_TASKS ? "tasks" : "cgroup.procs";
        if (fault_at(SBX_STEP_CGROUP_JOIN) || write_in(plan_string(sandbox->plan, cgroups[i].dir), file, "0") < 0)
            return failed(SBX_STEP_CGROUP_JOIN, (int)i);
    }
    return 0;
}
