/* identity.c: which ids of the launcher's world stand for which ids inside a sandbox.
 *
 * Host root: inside 0..65535 are id_base..id_base+65535, a private range that no account uses; host 0 is never mapped.
 * Rootless:  the sandbox's user is the caller itself (0 in the launcher's namespace); all other ids are subordinate
 *            ids, where the host grants any, in the order 1, 2, 3 ...
 * Where more than one id is mapped, init and the keepers run with SUPERVISOR_ID as real and saved user id: kill(2)
 * compares those, so nothing inside can signal them, while their effective id is the sandbox's user.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "internal.h"

bool identity_has_supervisor(const struct sandbox *sandbox)
{
    return sandbox->authority->root || sandbox->authority->sub_ids >= SBX_ID_COUNT;
}

static uint32_t outer(const struct sandbox *sandbox, uint32_t inside, uint32_t user)
{
    if (sandbox->authority->root)
        return sandbox->id_base + inside;
    if (inside == user || sandbox->authority->sub_ids < SBX_ID_COUNT)
        return 0;
    return inside < user ? inside + 1 : inside;
}

uint32_t identity_outer_uid(const struct sandbox *sandbox, uint32_t inside)
{
    return outer(sandbox, inside, sandbox->plan->uid);
}

uint32_t identity_outer_gid(const struct sandbox *sandbox, uint32_t inside)
{
    return outer(sandbox, inside, sandbox->plan->gid);
}

static void map_text(const struct sandbox *sandbox, uint32_t user, char *text, size_t size)
{
    if (sandbox->authority->root)
        snprintf(text, size, "0 %u %u\n", sandbox->id_base, (unsigned)SBX_ID_COUNT);
    else if (sandbox->authority->sub_ids < SBX_ID_COUNT)
        snprintf(text, size, "%u 0 1\n", user);
    else if (user == 0) /* two lines: a line must lie within one of the outer map's */
        snprintf(text, size, "0 0 1\n1 1 %u\n", (unsigned)SBX_ID_COUNT - 1);
    else
        snprintf(text, size, "0 1 %u\n%u 0 1\n%u %u %u\n", user, user, user + 1, user + 1, SBX_ID_COUNT - user - 1);
}

__attribute__((noreturn)) static int hold_namespace(void *unused)
{
    (void)unused;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        pause();
}

static int write_map(pid_t pid, const char *name, const char *text)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    return identity_write_file(path, text);
}

static int map_and_open(struct sandbox *sandbox, pid_t holder)
{
    char text[128], path[64];

    map_text(sandbox, sandbox->plan->uid, text, sizeof text);
    if (fault_at(SBX_STEP_USERNS_UID_MAP) || write_map(holder, "uid_map", text) < 0)
        return failed(SBX_STEP_USERNS_UID_MAP, -1);
    map_text(sandbox, sandbox->plan->gid, text, sizeof text);
    if (fault_at(SBX_STEP_USERNS_GID_MAP) || write_map(holder, "gid_map", text) < 0)
        return failed(SBX_STEP_USERNS_GID_MAP, -1);
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)holder);
    sandbox->userns = fault_at(SBX_STEP_USERNS_OPEN) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    return sandbox->userns < 0 ? failed(SBX_STEP_USERNS_OPEN, -1) : 0;
}

/* The sandbox's user namespace, made ahead of init so that mounts can be shifted into it: a short-lived process that
 * shares our memory (no page tables to copy) holds it while we, who have the power, write its maps. */
int identity_make_userns(struct sandbox *sandbox)
{
    static char stack[16384] __attribute__((aligned(16)));
    pid_t holder = fault_at(SBX_STEP_USERNS_CLONE) ? -1
                 : clone(hold_namespace, stack + sizeof stack, CLONE_NEWUSER | CLONE_VM | SIGCHLD, NULL);

    if (holder < 0)
        return failed(SBX_STEP_USERNS_CLONE, -1);
    int result = map_and_open(sandbox, holder);
    kill(holder, SIGKILL);
    while (waitpid(holder, NULL, 0) < 0 && errno == EINTR)
        ;
    return result;
}
