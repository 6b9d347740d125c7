/* idrange.c: private ranges of host ids, one per live sandbox, without collision between processes.
 *
 * A range is taken by an open-file-description lock (fcntl(2), F_OFD_SETLK) on one byte of a file that only root may
 * open. The kernel drops the locks when the launcher is gone, however it went: there is nothing to clean up. Locks of
 * one description never conflict with each other, hence the table of our own.
 */
#include "internal.h"

static unsigned char ours[SBX_ID_SLOTS];
static int next;

static int lock_byte(int slot, short type)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1 };

    return fcntl(SBX_FD_ID_LOCK, F_OFD_SETLK, &lock);
}

/* A slot, or -1. Ranges are handed out in turn, so that one is rested before it is used again. */
int idrange_take(void)
{
    for (int tried = 0; tried < SBX_ID_SLOTS; tried++) {
        int slot = next;
        next = (next + 1) % SBX_ID_SLOTS;
        if (ours[slot])
            continue;
        if (lock_byte(slot, F_WRLCK) == 0) {
            ours[slot] = 1;
            return slot;
        }
        if (errno != EAGAIN && errno != EACCES)
            return -1;
    }
    errno = EUSERS;
    return -1;
}

void idrange_release(int slot)
{
    lock_byte(slot, F_UNLCK);
    ours[slot] = 0;
}
