/* report.c: where and why the making of a sandbox or the start of a command failed. */
#include <signal.h>

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
static int armed_caller = -1; /* pidfd of the process to kill for faults with a signal */

void fault_arm(const struct sbx_fault *fault, int caller)
{
    armed = *fault;
    armed_caller = caller;
}

void fault_disarm(void)
{
    armed.step = SBX_STEP_NONE;
}

int fault_at(enum sbx_step step)
{
    if (armed.step != step)
        return 0;
    armed.step = SBX_STEP_NONE;
    if (armed.signal != 0) {
        syscall(SYS_pidfd_send_signal, armed_caller, armed.signal, NULL, 0);
        return 0;
    }
    errno = armed.error;
    return -1;
}
#endif
