/* internal.h: what the parts of the launcher executable share. Nothing here is seen by Python. */
#ifndef SANDBOXKIT_INTERNAL_H
#define SANDBOXKIT_INTERNAL_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "abi.h"
#include "kernel.h"

#define SBX_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* On whose authority namespaces are made: host root, or root of a user namespace the launcher made for itself. */
struct authority {
    bool root;             /* host root */
    uint32_t sub_ids;      /* rootless: how many subordinate ids stand at 1.. in the launcher's namespace; 0: single-id */
    int self;              /* pidfd of the launcher: how init knows that it still lives */
    ino_t namespaces[8];   /* inode of each of the launcher's namespaces, in the order of sbx_namespaces */
};

struct sbx_namespace { uint32_t flag; const char *name; };
extern const struct sbx_namespace sbx_namespaces[8];

/* One sandbox being made. The launcher fills it, init inherits it by clone. */
struct sandbox {
    const struct sbx_plan *plan;
    const struct authority *authority;
    uint32_t id_base;      /* root: host id of inside id 0 */
    int control, status;   /* sockets, init's ends */
    int userns;            /* the namespace to enter last, or -1 */
    int joins[8];
    int proc;              /* init: directory fd of the sandbox's own procfs */
    int root;              /* init: directory fd of the new root */
    int upper;             /* init: directory fd of the overlay's upper directory, or -1 */
    uint32_t degraded;     /* enum sbx_degraded */
};

/* plan.c: typed access to a plan that has been checked once */
int plan_check(const void *data, size_t length);
const char *plan_string(const struct sbx_plan *plan, uint32_t offset);
const void *plan_array(const struct sbx_plan *plan, uint32_t offset);

/* report.c: the first failure wins; each returns -1 so that callers can `return failed(...)` */
extern struct sbx_report report;
int failed(enum sbx_step step, int index);
/* Nonzero, with errno set, if the test build was told to fail this step; in other builds always 0. */
#ifdef SBX_FAULTS
int fault_at(enum sbx_step step);
void fault_arm(const struct sbx_fault *fault);
void fault_disarm(void);
#else
#define fault_at(step) 0
#define fault_disarm() ((void)0)
#endif

/* fds.c: closes all from 3 on but these; sorts the list, allocates nothing */
int fds_close_except(int *keep, int count);

/* wire.c */
ssize_t wire_receive(int sock, void *data, size_t length, int *fds, int max_fds, int *fd_count);
int wire_send(int sock, const void *data, size_t length, const int *fds, int fd_count);
void wire_close(int *fds, int count);

/* authority.c, identity.c */
int authority_acquire(struct authority *authority, int argc, char **argv);
bool identity_has_supervisor(const struct sandbox *sandbox);
uint32_t identity_outer_uid(const struct sandbox *sandbox, uint32_t inside);
uint32_t identity_outer_gid(const struct sandbox *sandbox, uint32_t inside);
int identity_make_userns(struct sandbox *sandbox);
int identity_write_file(const char *path, const char *text);
enum { SUPERVISOR_ID = SBX_ID_COUNT - 1 }; /* inside id of init and keepers where more than one id is mapped */

/* idrange.c */
int idrange_take(void);
void idrange_release(int slot);

/* cgroup.c */
int cgroup_create(const struct sbx_plan *plan);
void cgroup_remove(const struct sbx_plan *plan);
int cgroup_join(const struct sandbox *sandbox);

/* namespaces.c */
int namespaces_record(struct authority *authority);
int namespaces_join(const struct sandbox *sandbox);
int namespaces_finish(const struct sandbox *sandbox);

/* root.c, mounts.c */
int root_build(struct sandbox *sandbox);
int root_enter(struct sandbox *sandbox);
int root_open(int root, const char *path, uint64_t flags);
int mount_op(struct sandbox *sandbox, const struct sbx_op *op, int index);
int mount_tmpfs(const struct sandbox *sandbox, const struct sbx_op *op);

/* lockdown.c, attest.c */
int lock_down(struct sandbox *sandbox);
int attest(const struct sandbox *sandbox);

/* init.c, serve.c, keeper.c, command.c, tree.c, files.c */
__attribute__((noreturn)) void init_main(struct sandbox *sandbox);
__attribute__((noreturn)) void serve(struct sandbox *sandbox);
__attribute__((noreturn)) void keeper_main(const struct sandbox *sandbox, int signals, const void *record, size_t length,
                                           int *fds, int fd_count);
void file_request(const struct sandbox *sandbox, const void *record, size_t length, int reply);

/* One command, unpacked from a struct sbx_run: everything the child needs, so that it allocates nothing. */
struct command {
    const struct sbx_rlimit *rlimits;
    uint32_t rlimit_count, pass_count;
    const int32_t *pass_targets;
    const int *pass_fds;
    const int *stdio;      /* three fds */
    const char *cwd;
    char **candidates, **argv, **environ;
    bool terminal;
};
int command_unpack(struct command *command, const struct sbx_run *run, char *body, size_t length);
/* The pid, or -1 with `report` filled. */
pid_t command_spawn(const struct sandbox *sandbox, const struct command *command);

struct tree { int proc; pid_t root; };
uint64_t tree_cpu_ns(const struct tree *tree, uint32_t *processes);
void tree_kill(const struct tree *tree);

#endif
