/* report.c: where and why the making of a sandbox or the start of a command failed. */
#include <time.h>

#include "internal.h"

struct sbx_report report;

int failed(enum sbx_step step, int index)
{
    int error = errno;

    if (report.kind != SBX_FAILED) {
        report.kind = SBX_FAILED;
        report.step = step;
        report.index = index;
        report.error = error;
    }
    return -1;
}

#ifdef SBX_FAULTS
static struct sbx_fault armed;

void fault_arm(const struct sbx_fault *fault)
{
    armed = *fault;
}

void fault_disarm(void)
{
    armed.step = SBX_STEP_NONE;
}

/* Held, a step gives its test the time to do something to the caller just then. */
int fault_at(enum sbx_step step)
{
    if (armed.step != step)
        return 0;
    armed.step = SBX_STEP_NONE;
    if (armed.hold_ms != 0) {
        const struct timespec hold = { .tv_sec = armed.hold_ms / 1000, .tv_nsec = armed.hold_ms % 1000 * 1000000L };
        nanosleep(&hold, NULL);
        return 0;
    }
    errno = armed.error;
    return -1;
}
#endif
