"""An open sandbox, as the caller holds it: the two sockets to it, and what is known about it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING

import attrs

from sandboxkit.errors import SandboxClosedError, launch_error
from sandboxkit.plan import Plan
from sandboxkit.result import Control, Enforced
from sandboxkit.runtime import native
from sandboxkit.runtime.encode import encode_plan
from sandboxkit.runtime.host import ID_COUNT
from sandboxkit.runtime.launcher import Launcher, discard

if TYPE_CHECKING:
    from sandboxkit.runtime.run import Run

# How long a sandbox that was told to end may take before the caller stops waiting for it; it goes on ending by itself.
CLOSE_TIMEOUT = 10.0
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


@attrs.define(eq=False, kw_only=True)
class Session:
    """The caller's end of one sandbox. Any thread may use it; a fork of the process may not."""

    plan: Plan
    cwd: str
    enforced: Enforced
    id_base: int
    root: bool
    upper_fd: int
    _control: socket.socket
    _status: socket.socket
    runs: set[Run] = attrs.field(factory=set)
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    _closing: threading.Lock = attrs.field(factory=threading.Lock)
    _closed: bool = False

    def __attrs_post_init__(self) -> None:
        _sessions.add(self)

    @property
    def control_fd(self) -> int:
        return self._control.fileno()

    @property
    def closed(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        """Raises `SandboxClosedError` once the sandbox is closed, and in a fork of the process that opened it."""
        if self._closed:
            raise SandboxClosedError("this sandbox is closed, or belongs to the process this one was forked from")

    def inside_ids(self, uid: int, gid: int) -> tuple[int, int]:
        """Host ids as the sandbox sees them; what it does not see at all is 65534, as in the kernel."""
        return self._inside(uid, self.plan.uid, os.geteuid()), self._inside(gid, self.plan.gid, os.getegid())

    def _inside(self, number: int, user: int, caller: int) -> int:
        if not self.root:
            return user if number == caller else 65534
        if "user" not in self.plan.namespaces:
            return number
        return number - self.id_base if self.id_base <= number < self.id_base + ID_COUNT else 65534

    def oom_kills(self) -> int | None:
        """How often the kernel has killed in the sandbox's memory cgroup; None if it has none."""
        directory = self.plan.limits.directory("memory")
        if directory is None:
            return None
        for file in ("memory.oom_control", "memory.events"):
            with contextlib.suppress(OSError), open(os.path.join(directory, file), encoding="ascii") as lines:
                for line in lines:
                    name, _, value = line.partition(" ")
                    if name == "oom_kill":
                        return int(value)
        return None

    def kill_sandbox(self) -> None:
        """End the sandbox from outside, whatever it is doing, and wait until nothing of it is left."""
        with contextlib.suppress(OSError):
            native.send(self._status.fileno(), native.record("struct sbx_order", kind=native.lib.SBX_KILL_SANDBOX), ())
        self._wait_gone()

    def _wait_gone(self) -> None:
        with contextlib.suppress(OSError):
            while native.receive(self._status.fileno(), 0, CLOSE_TIMEOUT)[0]:
                pass
        self._remove_cgroups()

    def _remove_cgroups(self) -> None:
        """The launcher has removed them, unless somebody killed it: then its sandboxes are ending by themselves."""
        for directory, _ in reversed(self.plan.limits.cgroups):
            for _ in range(100):
                try:
                    os.rmdir(directory)
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        time.sleep(0.01)
                        continue
                break

    def close(self) -> None:
        """End everything in the sandbox and wait for its end. Idempotent."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            if "pid" in self.plan.joins:  # the end of our init does not end that namespace: each run by itself
                for run in list(self.runs):
                    run.abandon()
            self.kill_sandbox()
            self.release()

    def release(self) -> None:
        """Close the fds. In a fork of the caller this is all that may be done: the sandbox is its parent's."""
        self._closed = True
        self._control.close()
        self._status.close()
        if self.upper_fd >= 0:
            fd, self.upper_fd = self.upper_fd, -1
            os.close(fd)


def open_session(
    launcher: Launcher, plan: Plan, joins: tuple[int, ...], *, cwd: str, controls: dict[str, Control]
) -> Session:
    """Make the sandbox of a plan. Raises `LaunchError` that names the step, after all that was made is gone again."""
    control, control_peer = native.socket_pair()
    status, status_peer = native.socket_pair()
    try:
        with control_peer, status_peer:
            try:
                launcher.create(encode_plan(plan), (control_peer.fileno(), status_peer.fileno(), *joins))
            except OSError as error:
                discard(launcher)
                raise launch_error("launcher_start", error.errno or 0, None) from error
        return _await_ready(launcher, plan, control, status, cwd, controls)
    except BaseException:
        control.close()
        with contextlib.suppress(OSError):  # an interrupted caller waits for the end of what it had asked for
            native.send(status.fileno(), native.record("struct sbx_order", kind=native.lib.SBX_KILL_SANDBOX), ())
            while native.receive(status.fileno(), 1, CLOSE_TIMEOUT)[0]:
                pass
        status.close()
        raise


def _await_ready(
    launcher: Launcher,
    plan: Plan,
    control: socket.socket,
    status: socket.socket,
    cwd: str,
    controls: dict[str, Control],
) -> Session:
    data, fds = native.receive(status.fileno(), 1, None)
    if not data:
        discard(launcher)
        raise launch_error("launcher_start", 0, None, detail="the launcher ended while it made the sandbox")
    answer = native.unrecord("struct sbx_report", data)
    if answer.kind != native.lib.SBX_READY:
        step = native.STEP_NAMES[answer.step]
        raise launch_error(step, answer.error, _path_of(plan, step, answer.index), index=answer.index)
    return Session(
        plan=plan,
        cwd=cwd,
        enforced=Enforced(_with_degraded(controls, answer.degraded)),
        id_base=answer.id_base,
        root=launcher.authority.root,
        upper_fd=fds[0] if fds else -1,
        control=control,
        status=status,
    )


def _with_degraded(controls: dict[str, Control], degraded: int) -> dict[str, Control]:
    found = dict(controls)
    if degraded & native.lib.SBX_DEGRADED_IDMAP:
        found["idmap"] = Control(
            by="", detail="the layer's file system cannot shift owners: its files are nobody's", asked=False
        )
    if degraded & native.lib.SBX_DEGRADED_GROUPS:
        found["groups"] = Control(
            by="", detail="the caller's supplementary groups stay: no subordinate ids", asked=False
        )
    return found


def _path_of(plan: Plan, step: str, index: int) -> str | None:
    """The path a failure is about, from the plan's own entries."""
    if index < 0:
        return None
    if step in ("cgroup_create", "cgroup_join"):
        return plan.limits.cgroups[index][0]
    if step == "cgroup_limit":
        group, file, _ = plan.limits.settings[index]
        return os.path.join(plan.limits.cgroups[group][0], file)
    if step == "ns_join":
        return f"{plan.joins[index]} namespace"
    if step in ("cap_bounding",):
        return None
    if index < len(plan.ops):
        op = plan.ops[index]
        return op.source if step in ("layer", "bind_source") else op.target or None
    return None


def _after_fork() -> None:
    for session in list(_sessions):
        session.lock = threading.Lock()
        session._closing = threading.Lock()
        session.runs = set()
        session.release()


os.register_at_fork(after_in_child=_after_fork)
