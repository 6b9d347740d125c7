/* namespaces.c: joining namespaces of others, and finishing those that clone made. */
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "internal.h"

const struct sbx_namespace sbx_namespaces[8] = {
    { CLONE_NEWUSER, "user" }, { CLONE_NEWPID, "pid" }, { CLONE_NEWNS, "mnt" }, { CLONE_NEWNET, "net" },
    { CLONE_NEWIPC, "ipc" }, { CLONE_NEWUTS, "uts" }, { CLONE_NEWCGROUP, "cgroup" }, { CLONE_NEWTIME, "time" },
};

/* What attestation compares with: a sandbox's new namespaces must not be the launcher's. */
int namespaces_record(struct authority *authority)
{
    for (size_t i = 0; i < SBX_LENGTH(sbx_namespaces); i++) {
        char path[64];
        struct stat info;
        snprintf(path, sizeof path, "/proc/self/ns/%s", sbx_namespaces[i].name);
        if (stat(path, &info) < 0) {
            if (errno == ENOENT)
                continue; /* a kernel without this kind */
            return -1;
        }
        authority->namespaces[i] = info.st_ino;
    }
    return 0;
}

/* The pid namespace is joined before init is made (launcher.c); the user namespace at the very end (lockdown.c). */
int namespaces_join(const struct sandbox *sandbox)
{
    const struct sbx_join *joins = plan_array(sandbox->plan, sandbox->plan->joins);

    for (uint32_t i = 0; i < sandbox->plan->join_count; i++) {
        if (joins[i].nstype == CLONE_NEWPID || joins[i].nstype == CLONE_NEWUSER)
            continue;
        if (fault_at(SBX_STEP_NS_JOIN) || setns(sandbox->joins[i], (int)joins[i].nstype) < 0)
            return failed(SBX_STEP_NS_JOIN, (int)i);
    }
    /* Only now, inside its cgroups: the namespace's root is where its maker stands. */
    if ((sandbox->plan->namespaces & CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
        return failed(SBX_STEP_NS_JOIN, -1);
    return 0;
}

static int raise_loopback(void)
{
    struct ifreq request = { .ifr_name = "lo" };
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (sock < 0)
        return -1;
    int result = ioctl(sock, SIOCGIFFLAGS, &request);
    request.ifr_flags |= IFF_UP;
    if (result == 0)
        result = ioctl(sock, SIOCSIFFLAGS, &request);
    int error = errno;
    close(sock);
    errno = error;
    return result;
}

static void split_ns(int64_t offset, long long *seconds, long *nanoseconds)
{
    *seconds = offset / 1000000000;
    *nanoseconds = (long)(offset % 1000000000);
    if (*nanoseconds < 0) { /* time_namespaces(7): the nanoseconds must not be negative */
        *nanoseconds += 1000000000;
        *seconds -= 1;
    }
}

/* A new time namespace takes its offsets before anybody is in it; then init, alone in its process, steps inside. */
static int enter_time(const struct sandbox *sandbox)
{
    char text[128];
    long long mono_s, boot_s;
    long mono_ns, boot_ns;

    split_ns(sandbox->plan->monotonic_ns, &mono_s, &mono_ns);
    split_ns(sandbox->plan->boottime_ns, &boot_s, &boot_ns);
    int length = snprintf(text, sizeof text, "monotonic %lld %ld\nboottime %lld %ld\n", mono_s, mono_ns, boot_s, boot_ns);
    if (unshare(CLONE_NEWTIME) < 0)
        return -1;
    int fd = openat(sandbox->proc, "self/timens_offsets", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, text, (size_t)length);
    close(fd);
    if (written != length)
        return -1;
    fd = openat(sandbox->proc, "self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = setns(fd, CLONE_NEWTIME);
    close(fd);
    return result;
}

int namespaces_finish(const struct sandbox *sandbox)
{
    const struct sbx_plan *plan = sandbox->plan;
    const char *hostname = plan_string(plan, plan->hostname);

    if (*hostname != '\0' && (fault_at(SBX_STEP_HOSTNAME) || sethostname(hostname, strlen(hostname)) < 0))
        return failed(SBX_STEP_HOSTNAME, -1);
    if ((plan->flags & SBX_PLAN_LOOPBACK) && (fault_at(SBX_STEP_LOOPBACK) || raise_loopback() < 0))
        return failed(SBX_STEP_LOOPBACK, -1);
    if ((plan->flags & SBX_PLAN_TIME) && (fault_at(SBX_STEP_TIME_OFFSETS) || enter_time(sandbox) < 0))
        return failed(SBX_STEP_TIME_OFFSETS, -1);
    return 0;
}
