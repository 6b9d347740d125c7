/* tree.c: the processes of one run: all descendants of its keeper, who is a subreaper, so that none can leave.
 *
 * Read from /proc/PID/stat: one pass gives every process's parent. A parent may die during the pass; its children then
 * belong to the keeper, which is in the tree, so a stale parent never takes a process out of it.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "internal.h"

struct process { pid_t pid, parent; char state; bool ours; uint64_t ticks; };
struct snapshot { struct process *list; size_t count, capacity; };

static bool parse(const char *text, struct process *process)
{
    const char *after = strrchr(text, ')'); /* the command name may hold anything, parentheses too */
    unsigned long long user, system, waited_user, waited_system;
    int parent;

    /* proc_pid_stat(5): state, ppid, then utime, stime, cutime, cstime as fields 14 to 17 */
    if (after == NULL || sscanf(after + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
                                &process->state, &parent, &user, &system, &waited_user, &waited_system) != 6)
        return false;
    process->parent = parent;
    process->ticks = user + system + waited_user + waited_system;
    process->ours = false;
    return true;
}

static void add(const struct tree *tree, struct snapshot *all, pid_t pid)
{
    char path[32], text[512];

    snprintf(path, sizeof path, "%d/stat", (int)pid);
    int fd = openat(tree->proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return;
    text[length] = '\0';
    if (all->count == all->capacity) {
        size_t capacity = all->capacity == 0 ? 64 : all->capacity * 2;
        struct process *larger = realloc(all->list, capacity * sizeof *larger);
        if (larger == NULL)
            return;
        all->list = larger;
        all->capacity = capacity;
    }
    all->list[all->count].pid = pid;
    if (parse(text, &all->list[all->count]))
        all->count++;
}

/* Marks what descends from the root: passes over the list until one finds nothing new. */
static void mark(const struct tree *tree, struct snapshot *all)
{
    bool found = true;

    while (found) {
        found = false;
        for (size_t i = 0; i < all->count; i++) {
            if (all->list[i].ours || all->list[i].pid == tree->root)
                continue;
            bool child = all->list[i].parent == tree->root;
            for (size_t k = 0; k < all->count && !child; k++)
                child = all->list[k].ours && all->list[k].pid == all->list[i].parent;
            all->list[i].ours = child;
            found = found || child;
        }
    }
}

static void look(const struct tree *tree, struct snapshot *all)
{
    int fd = openat(tree->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    all->count = 0;
    if (directory == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((entry = readdir(directory)) != NULL)
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
            add(tree, all, (pid_t)atoi(entry->d_name));
    closedir(directory);
    mark(tree, all);
}

/* CPU time of the living, including what each has reaped, in the kernel's ticks: enough to know when to look again. */
uint64_t tree_cpu_ns(const struct tree *tree, uint32_t *processes)
{
    struct snapshot all = { 0 };
    const uint64_t tick_ns = 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);
    uint64_t ticks = 0;

    *processes = 0;
    look(tree, &all);
    for (size_t i = 0; i < all.count; i++)
        if (all.list[i].ours) {
            ticks += all.list[i].ticks;
            ++*processes;
        }
    free(all.list);
    return ticks * tick_ns;
}

static size_t signal_tree(const struct snapshot *all, int signal, bool only_running)
{
    size_t sent = 0;

    for (size_t i = 0; i < all->count; i++) {
        const struct process *process = &all->list[i];
        if (!process->ours || process->state == 'Z' || process->state == 'X')
            continue;
        if (only_running && (process->state == 'T' || process->state == 't'))
            continue;
        kill(process->pid, signal);
        sent++;
    }
    return sent;
}

/* Ends every descendant and reaps it. What forks as fast as it is killed is stopped first: a stopped process cannot
 * fork, so each pass leaves fewer that can, and a fork bomb at its limit finds no free slot while it is being stopped. */
void tree_kill(const struct tree *tree)
{
    struct snapshot all = { 0 };
    enum { STOP_PASSES = 100 };

    while (waitpid(-1, NULL, WNOHANG) >= 0) {
        for (int pass = 0; pass < STOP_PASSES; pass++) {
            look(tree, &all);
            if (signal_tree(&all, SIGSTOP, true) == 0)
                break;
        }
        look(tree, &all);
        signal_tree(&all, SIGKILL, false);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        /* Wait for one death at a time: each may hand its children to us. */
        if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD)
            break;
    }
    free(all.list);
}
