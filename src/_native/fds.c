/* fds.c: which file descriptors a process keeps. */
#include "internal.h"

static void sort(int *numbers, int count)
{
    for (int i = 1; i < count; i++)
        for (int k = i; k > 0 && numbers[k - 1] > numbers[k]; k--) {
            int swap = numbers[k];
            numbers[k] = numbers[k - 1];
            numbers[k - 1] = swap;
        }
}

int fds_close_except(int *keep, int count)
{
    unsigned first = 3;

    sort(keep, count);
    for (int i = 0; i < count; i++) {
        if (keep[i] < 0 || (unsigned)keep[i] < first)
            continue;
        if ((unsigned)keep[i] > first && k_close_range(first, (unsigned)keep[i] - 1) < 0)
            return -1;
        first = (unsigned)keep[i] + 1;
    }
    return k_close_range(first, ~0U);
}
