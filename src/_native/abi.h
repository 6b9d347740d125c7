/* abi.h: the whole boundary between Python and C, and between the three C processes.
 *
 * caller (Python + client.c) -- launcher -- init (pid 1 of a sandbox) -- keeper (one per run) -- the command
 *
 * Everything between the two ABI markers is also read by cffi, so it stays within what cffi's parser accepts.
 * All offsets are bytes from the start of the record they stand in; every string ends in NUL; 0 means "not given".
 * Both ends run on one machine and come out of one build: native byte order and alignment.
 */
#ifndef SANDBOXKIT_ABI_H
#define SANDBOXKIT_ABI_H

#include <stdint.h>
#include <stddef.h>

/* ABI BEGIN */

/* One code per thing that can fail; the text is made in Python (sandboxkit.errors). */
enum sbx_step {
    SBX_STEP_NONE,
    /* the launcher, once */
    SBX_STEP_LAUNCHER_START, SBX_STEP_AUTHORITY_CLONE, SBX_STEP_AUTHORITY_UID_MAP, SBX_STEP_AUTHORITY_GID_MAP,
    /* the launcher, for one sandbox */
    SBX_STEP_PLAN, SBX_STEP_ID_RANGE, SBX_STEP_CGROUP_CREATE, SBX_STEP_CGROUP_LIMIT,
    SBX_STEP_USERNS_CLONE, SBX_STEP_USERNS_UID_MAP, SBX_STEP_USERNS_GID_MAP, SBX_STEP_USERNS_OPEN,
    SBX_STEP_CLONE,
    /* init, in this order */
    SBX_STEP_CGROUP_JOIN, SBX_STEP_NS_JOIN, SBX_STEP_PROPAGATION, SBX_STEP_STAGE,
    SBX_STEP_LAYER, SBX_STEP_ROOT, SBX_STEP_TARGET, SBX_STEP_MKDIR, SBX_STEP_FILE, SBX_STEP_SYMLINK,
    SBX_STEP_BIND_SOURCE, SBX_STEP_BIND, SBX_STEP_TMPFS, SBX_STEP_PROC, SBX_STEP_REMOUNT,
    SBX_STEP_PIVOT_ROOT, SBX_STEP_DETACH_OLD_ROOT, SBX_STEP_CHDIR_ROOT,
    SBX_STEP_HOSTNAME, SBX_STEP_LOOPBACK, SBX_STEP_TIME_OFFSETS,
    SBX_STEP_USERNS_ENTER, SBX_STEP_CAP_BOUNDING, SBX_STEP_SECUREBITS, SBX_STEP_SETGROUPS, SBX_STEP_SETGID,
    SBX_STEP_SETUID, SBX_STEP_CAP_CLEAR, SBX_STEP_NO_NEW_PRIVS, SBX_STEP_LANDLOCK,
    SBX_STEP_SECCOMP, SBX_STEP_DUMPABLE, SBX_STEP_PDEATHSIG, SBX_STEP_ATTEST, SBX_STEP_READY,
    /* one run */
    SBX_STEP_RUN_REQUEST, SBX_STEP_RUN_FORK, SBX_STEP_SESSION, SBX_STEP_STDIO, SBX_STEP_TERMINAL, SBX_STEP_PASS_FDS,
    SBX_STEP_RLIMIT, SBX_STEP_IDENTITY, SBX_STEP_CWD, SBX_STEP_CLOSE_FDS, SBX_STEP_EXEC,
    SBX_STEP_COUNT
};

/* File system operations: init applies them in the order given, nothing else is mounted. */
enum sbx_op_kind {
    SBX_OP_LAYER = 1,      /* source: a lower directory of the overlay to come, bottom first */
    SBX_OP_ROOT_OVERLAY,   /* the root: overlay of the layers with a tmpfs top (size, inodes) */
    SBX_OP_ROOT_TMPFS,     /* the root: an empty tmpfs (size, inodes) */
    SBX_OP_DIR,            /* target, mode, uid, gid: mkdir -p */
    SBX_OP_FILE,           /* target, data, mode, uid, gid */
    SBX_OP_SYMLINK,        /* target, data: what it points to */
    SBX_OP_BIND,           /* source onto target; dev/ino: what source was when the caller looked (0 = unchecked) */
    SBX_OP_TMPFS,          /* target, size, inodes, mode, uid, gid */
    SBX_OP_PROC,           /* target: a fresh procfs of the sandbox's pid namespace */
    SBX_OP_READONLY        /* target ("/" for the root): make the mount there read-only */
};

enum sbx_op_flag {
    SBX_OP_RDONLY = 1, SBX_OP_RECURSIVE = 2, SBX_OP_DEVICE = 4 /* leave out nodev */, SBX_OP_NOEXEC = 8,
    SBX_OP_IDMAP = 16 /* shift file owners into the sandbox's range if the file system can */
};

struct sbx_op {
    uint32_t kind, flags, source, target, data, data_len, mode, uid, gid, pad; /* uid, gid: as seen inside */
    uint64_t size, inodes, dev, ino;
};

enum sbx_cgroup_flag { SBX_CGROUP_TASKS = 1 /* init joins by writing 0 to `tasks` (v1) */, SBX_CGROUP_PROCS = 2 /* ... to `cgroup.procs` (v2) */ };
struct sbx_cgroup  { uint32_t dir, flags; };               /* created by the launcher, removed by it */
struct sbx_setting { uint32_t cgroup, file, value, pad; }; /* index into the cgroups */
struct sbx_join    { uint32_t nstype, pad; };              /* one passed fd each, in order */
struct sbx_rlimit  { uint32_t resource, pad; uint64_t soft, hard; };

enum sbx_plan_flag {
    SBX_PLAN_USERNS = 1,   /* enter a user namespace of its own, last */
    SBX_PLAN_LOOPBACK = 2, /* bring `lo` up */
    SBX_PLAN_TIME = 4      /* a time namespace with the offsets below */
};

/* What a sandbox is. Sent to the launcher as SBX_CREATE. fds: control, status, then one per join. */
struct sbx_plan {
    uint32_t kind, size, flags, namespaces /* CLONE_NEW* to create, without user and time */;
    uint32_t uid, gid, group_count, groups /* offset of uint32_t[] */;
    int64_t  monotonic_ns, boottime_ns;
    uint32_t hostname, op_count, ops, join_count, joins, cgroup_count, cgroups, setting_count, settings;
    uint32_t seccomp, seccomp_len, pad;
};

enum sbx_message {
    SBX_CREATE = 0x53425801, /* caller -> launcher */
    SBX_FAULT,               /* caller -> launcher, builds with SBX_FAULTS only */
    SBX_KILL_SANDBOX,        /* caller -> launcher on a status socket: end it now; EOF follows when all is gone */
    SBX_READY,               /* init -> caller on the status socket; fds: the upper directory if there is an overlay */
    SBX_FAILED,              /* launcher or init or keeper -> caller */
    SBX_RUN,                 /* caller -> init on the control socket; fds: reply socket, [body], stdin, stdout, stderr, pass_fds */
    SBX_FILE,                /* caller -> init on the control socket; fds: reply socket */
    SBX_STARTED,             /* keeper -> caller; fds: a pidfd of the main process */
    SBX_EXITED,              /* keeper -> caller */
    SBX_SIGNAL,              /* caller -> keeper: value is sent to the main process */
    SBX_KILL,                /* caller -> keeper: end the whole tree; value is an enum sbx_cause */
    SBX_FILE_DONE            /* init -> caller; fds: what was opened */
};

/* Why a run was ended by us: echoed in SBX_EXITED if the main process was still alive then. */
enum sbx_cause { SBX_CAUSE_NONE, SBX_CAUSE_WALL, SBX_CAUSE_CPU, SBX_CAUSE_OUTPUT, SBX_CAUSE_KILLED };

/* SBX_READY, SBX_FAILED, SBX_FILE_DONE. index: the op, layer, join or cgroup concerned, or -1. */
struct sbx_report { uint32_t kind, step; int32_t index, error; uint32_t degraded, id_base /* READY: see identity.c */; };
enum sbx_degraded { SBX_DEGRADED_IDMAP = 1, SBX_DEGRADED_GROUPS = 2 };

/* SBX_SIGNAL, SBX_KILL, SBX_KILL_SANDBOX */
struct sbx_order { uint32_t kind; int32_t value; };

enum sbx_run_flag {
    SBX_RUN_BODY_FD = 1,   /* the body is in a memfd, the second passed fd, not behind the header */
    SBX_RUN_LINGER = 2,    /* popen: descendants outlive the main process until the reply socket is closed */
    SBX_RUN_STARTED = 4,   /* send SBX_STARTED */
    SBX_RUN_TERMINAL = 8   /* stdin is a terminal: make it the controlling one */
};

/* One run. The body: sbx_rlimit[rlimit_count], int32_t[pass_count] (target numbers), then NUL-terminated strings:
 * cwd, the exec candidates, argv, the environment. */
struct sbx_run {
    uint32_t kind, flags, body_len, rlimit_count, pass_count, candidate_count, argc, envc;
    uint64_t cpu_limit_ns; /* 0: none */
};

struct sbx_exit {
    uint32_t kind; int32_t status /* as wait(2) gives it */; uint32_t cause, pad;
    uint64_t wall_ns, user_ns, system_ns, max_rss /* bytes, of the largest process */;
    uint64_t minor_faults, major_faults, voluntary_switches, involuntary_switches, blocks_in, blocks_out;
};

enum sbx_file_verb { SBX_FILE_OPEN = 1, SBX_FILE_MKDIR, SBX_FILE_REMOVE };
/* Acts with the identity of the sandbox's user; the path is resolved inside the root (openat2, RESOLVE_IN_ROOT). */
struct sbx_file { uint32_t kind, verb; int32_t flags /* open flags; AT_REMOVEDIR */; uint32_t mode; /* the path follows, NUL-terminated */ };

/* Test builds: fail `step` once for the next sandbox with `error`; with hold_ms != 0 it is held there for so long instead.
 * For run steps: the next run of the next sandbox. */
struct sbx_fault { uint32_t kind, step; int32_t error, hold_ms; };

/* fds of the launcher at its start */
enum { SBX_FD_SOCKET = 3, SBX_FD_CALLER = 4 /* pidfd of the caller */, SBX_FD_ID_LOCK = 5 /* lock file of the id ranges, root only */ };
/* The id ranges handed out as root: count ids from base + slot * count. */
enum { SBX_ID_BASE = 0x70000000, SBX_ID_COUNT = 65536, SBX_ID_SLOTS = 4094 };

/* client.c, in the extension. All return -errno on failure and never block with the GIL held. */
int sbx_send(int sock, const void *data, size_t len, const int *fds, int fd_count);
/* Receives one record; fds beyond max_fds are closed. Returns its length, 0 at EOF. timeout_ms < 0: no limit; -ETIMEDOUT. */
int sbx_receive(int sock, void *data, size_t len, int *fds, int max_fds, int *fd_count, int timeout_ms);
int sbx_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
int sbx_sealed_memfd(const char *name, const void *data, size_t len);

/* One stream of a run being captured. keep: at most so many bytes are kept, the rest is read and dropped. */
struct sbx_stream { int fd; int overflowed; char *data; size_t len, capacity, keep; };
/* The state of one wait; zero it, fill the first block, call sbx_wait until it returns 0 or fails. */
struct sbx_wait {
    int reply;                              /* the run's reply socket */
    int stdin_fd; int kill_on_overflow; int until_eof /* communicate(): also wait for both streams to end */;
    const char *input; size_t input_len;    /* written to stdin_fd, which is then closed */
    int64_t deadline_ns;                    /* CLOCK_MONOTONIC; < 0: none */
    int64_t grace_ns;                       /* how long after a kill order the run may take to report */
    int deadline_kills;                     /* 1: the deadline kills the run; 0: sbx_wait returns -ETIMEDOUT */
    struct sbx_stream out, err;             /* fd < 0: not captured */
    size_t input_done;
    int exited;                             /* exit is valid */
    struct sbx_exit exit;
    struct sbx_report failed;               /* kind is SBX_FAILED if the launch failed */
    int order_sent; int64_t order_ns;
};
/* 0: finished (exited, failed, or EOF without a word: neither set). -EINTR: a signal came, call again.
 * -ETIMEDOUT: the deadline (deadline_kills == 0). -ETIME: killed, yet no report within the grace. */
int sbx_wait(struct sbx_wait *wait);
void sbx_stream_free(struct sbx_stream *stream);

/* probe.c, in the extension. 0 if the kernel answers (Landlock: the ABI's number), else -errno. */
enum sbx_feature {
    SBX_FEATURE_CLONE3, SBX_FEATURE_OPENAT2, SBX_FEATURE_MOUNT_SETATTR, SBX_FEATURE_CLOSE_RANGE, SBX_FEATURE_PIDFD,
    SBX_FEATURE_SECCOMP, SBX_FEATURE_LANDLOCK
};
int sbx_probe(enum sbx_feature feature);

/* ABI END */

#endif
