/* attest.c: reading back what was set. A step that was silently skipped must stop the launch, not weaken the sandbox. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "internal.h"

static int mismatch(int index)
{
    errno = EPERM;
    return failed(SBX_STEP_ATTEST, index);
}

/* The value behind `name:` in /proc/self/status, as a number in the given base; -1 if there is no such line. */
static long long status_value(const char *status, const char *name, int base)
{
    const char *line = strstr(status, name);

    return line == NULL ? -1 : strtoll(line + strlen(name), NULL, base);
}

static bool powerless(const struct sandbox *sandbox)
{
    static const char *const sets[] = { "\nCapInh:", "\nCapPrm:", "\nCapEff:", "\nCapBnd:", "\nCapAmb:" };
    char status[4096];
    int fd = openat(sandbox->proc, "self/status", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, status, sizeof status - 1);

    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return false;
    status[length] = '\0';
    for (size_t i = 0; i < SBX_LENGTH(sets); i++)
        if (status_value(status, sets[i], 16) != 0)
            return false;
    if (sandbox->plan->seccomp_len != 0 && status_value(status, "\nSeccomp:", 10) != 2)
        return false;
    return status_value(status, "\nNoNewPrivs:", 10) == 1 && prctl(PR_GET_DUMPABLE) == 0;
}

static bool right_identity(const struct sandbox *sandbox)
{
    const uint32_t base = sandbox->plan->flags & SBX_PLAN_USERNS ? 0 : sandbox->id_base;
    const uid_t uid = base + sandbox->plan->uid, gid = base + sandbox->plan->gid;
    const uid_t supervisor = identity_has_supervisor(sandbox) ? base + SUPERVISOR_ID : uid;
    uid_t real, effective, saved;
    gid_t gids[3];

    if (getresuid(&real, &effective, &saved) < 0 || getresgid(&gids[0], &gids[1], &gids[2]) < 0)
        return false;
    if (gids[0] != gid || gids[1] != gid || gids[2] != gid)
        return false;
    return real == supervisor && effective == uid && saved == supervisor;
}

/* Every namespace that was asked for must be another one than the launcher's. */
static int check_namespaces(const struct sandbox *sandbox)
{
    uint32_t wanted = sandbox->plan->namespaces;

    if (sandbox->plan->flags & SBX_PLAN_USERNS)
        wanted |= CLONE_NEWUSER;
    if (sandbox->plan->flags & SBX_PLAN_TIME)
        wanted |= CLONE_NEWTIME;
    for (size_t i = 0; i < SBX_LENGTH(sbx_namespaces); i++) {
        char path[32];
        struct stat info;
        if (!(wanted & sbx_namespaces[i].flag))
            continue;
        snprintf(path, sizeof path, "self/ns/%s", sbx_namespaces[i].name);
        if (fstatat(sandbox->proc, path, &info, 0) < 0 || info.st_ino == sandbox->authority->namespaces[i])
            return mismatch((int)i);
    }
    return 0;
}

static int check_readonly(const struct sandbox *sandbox)
{
    const struct sbx_op *ops = plan_array(sandbox->plan, sandbox->plan->ops);

    for (uint32_t i = 0; i < sandbox->plan->op_count; i++) {
        struct statvfs info;
        if (ops[i].kind != SBX_OP_READONLY && !(ops[i].kind == SBX_OP_BIND && (ops[i].flags & SBX_OP_RDONLY)))
            continue;
        int fd = root_open(AT_FDCWD, plan_string(sandbox->plan, ops[i].target), O_PATH);
        int result = fd < 0 ? -1 : fstatvfs(fd, &info);
        bool hidden = fd < 0 && (errno == EACCES || errno == ENOENT || errno == ENOTDIR); /* covered by a later mount */
        if (fd >= 0)
            close(fd);
        if (!hidden && (result < 0 || !(info.f_flag & ST_RDONLY)))
            return mismatch((int)i);
    }
    return 0;
}

/* Were anything still stacked on the root, `..` would lead onto it: the old root, most likely. */
static bool alone_at_root(void)
{
    struct stat root, above;

    return stat("/", &root) == 0 && stat("/..", &above) == 0 && root.st_dev == above.st_dev && root.st_ino == above.st_ino;
}

int attest(const struct sandbox *sandbox)
{
    if (fault_at(SBX_STEP_ATTEST))
        return failed(SBX_STEP_ATTEST, -1);
    if (!powerless(sandbox) || !right_identity(sandbox) || !alone_at_root())
        return mismatch(-1);
    return check_namespaces(sandbox) < 0 ? -1 : check_readonly(sandbox);
}
