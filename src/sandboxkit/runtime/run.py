"""One run: starting it, waiting for it in C, ending it, and reading the result off the kernel's evidence."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal as signals
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from sandboxkit.errors import LaunchError, SandboxClosedError, launch_error
from sandboxkit.result import Reason, Result, Truncated, Usage
from sandboxkit.runtime import native
from sandboxkit.runtime.command import Command

if TYPE_CHECKING:
    from sandboxkit.runtime.session import Session

# How long a run that was told to end may take to say so before the whole sandbox is ended from outside.
GRACE = 5.0
_CAUSES = {
    native.lib.SBX_CAUSE_WALL: Reason.WALL_TIME,
    native.lib.SBX_CAUSE_CPU: Reason.CPU_TIME,
    native.lib.SBX_CAUSE_OUTPUT: Reason.OUTPUT,
    native.lib.SBX_CAUSE_KILLED: Reason.KILLED,
}
_HITS = {Reason.WALL_TIME: "wall_time", Reason.CPU_TIME: "cpu_time", Reason.MEMORY: "memory", Reason.OUTPUT: "output"}


@attrs.define(eq=False)
class Run:
    """The caller's end of one run. Closing it ends the run's whole tree."""

    session: Session
    command: Command
    oom_kills: int | None
    _reply: socket.socket

    @property
    def reply_fd(self) -> int:
        return self._reply.fileno()

    def kill(self, cause: int = native.lib.SBX_CAUSE_KILLED) -> None:
        """Ask for the end of the whole tree."""
        self._order(native.lib.SBX_KILL, cause)

    def signal(self, number: int) -> None:
        """Ask for a signal to the main process."""
        self._order(native.lib.SBX_SIGNAL, number)

    def _order(self, kind: int, value: int) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # everything is gone already
            native.send(self.reply_fd, native.record("struct sbx_order", kind=kind, value=value))

    def abandon(self) -> None:
        """End the tree and wait until it is gone, at most for the grace; then the sandbox as a whole is ended."""
        try:
            self.kill()
            while native.receive(self.reply_fd, 1, GRACE)[0]:
                pass
        except TimeoutError:
            self.session.kill_sandbox()
        except OSError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the socket; the keeper ends whatever is left of the run."""
        with self.session.lock:
            self.session.runs.discard(self)
        self._reply.close()


def start(session: Session, command: Command, stdio: Sequence[int], flags: int) -> Run:
    """Hand a command to init. Whether it could be started is the first thing the run's socket says."""
    session.check_open()
    ours, theirs = native.socket_pair()
    run = Run(session, command, session.oom_kills(), ours)
    try:
        with theirs:
            record, memfd = command.encode(flags)
            try:
                fds = [theirs.fileno(), *([memfd] if memfd >= 0 else []), *stdio, *command.pass_fds]
                native.send(session.control_fd, record, fds)
            finally:
                if memfd >= 0:
                    os.close(memfd)
    except (BrokenPipeError, ConnectionError):
        ours.close()
        session.check_open()
        raise SandboxClosedError("this sandbox has ended: its init is gone") from None
    except BaseException:
        ours.close()
        raise
    with session.lock:
        session.runs.add(run)
    return run


def launch_failure(command: Command, report: Any) -> LaunchError:
    """What subprocess would raise, as a `LaunchError`."""
    step = native.STEP_NAMES[report.step]
    path = os.fsdecode(command.cwd if step == "cwd" else command.args[0])
    failure = launch_error(step, report.error, path, index=report.index)
    assert isinstance(failure, LaunchError)
    return failure


def deadline(timeout: float | None) -> int:
    """CLOCK_MONOTONIC nanoseconds at which a timeout ends; -1 for never."""
    if timeout is None or math.isinf(timeout) or timeout > 1e9:
        return -1
    return time.monotonic_ns() + round(timeout * 1e9)


def wait(run: Run, state: Any) -> int:
    """sbx_wait until it is done, with Python's signal handlers run in between. 0, -ETIMEDOUT or -ETIME."""
    while True:
        status: int = native.lib.sbx_wait(state)
        if status in (0, -errno.ETIMEDOUT, -errno.ETIME):
            return status
        if status != -errno.EINTR:
            raise OSError(-status, os.strerror(-status))


def new_state(run: Run, *, stdin: int = -1, stdout: int = -1, stderr: int = -1, keep: int = 0) -> Any:
    """A `struct sbx_wait` that frees what it has captured."""

    def free(state: Any) -> None:
        native.lib.sbx_stream_free(native.ffi.addressof(state, "out"))
        native.lib.sbx_stream_free(native.ffi.addressof(state, "err"))

    state = native.ffi.gc(native.ffi.new("struct sbx_wait *"), free)
    state.reply, state.stdin_fd = run.reply_fd, stdin
    state.out.fd, state.err.fd = stdout, stderr
    state.out.keep = state.err.keep = keep
    state.deadline_ns = -1
    state.grace_ns = round(GRACE * 1e9)
    return state


def taken(stream: Any) -> bytes:
    """What a stream has captured."""
    return bytes(native.ffi.buffer(stream.data, stream.len)) if stream.len else b""


def settle(run: Run) -> None:
    """After a run ended without a word its keeper was killed from inside. One round trip to init, which first ends
    everything in the sandbox in that case, makes sure that nothing of the run is left."""
    ours, theirs = native.socket_pair()
    with ours, contextlib.suppress(OSError):
        with theirs:
            request = native.record("struct sbx_file", kind=native.lib.SBX_FILE, verb=0) + b"/\0"
            native.send(run.session.control_fd, request, [theirs.fileno()])
        native.receive(ours.fileno(), 1, GRACE)


def _usage(exit_record: Any) -> Usage:
    return Usage(
        wall_time=exit_record.wall_ns / 1e9,
        cpu_time=(exit_record.user_ns + exit_record.system_ns) / 1e9,
        user_time=exit_record.user_ns / 1e9,
        system_time=exit_record.system_ns / 1e9,
        memory_peak=exit_record.max_rss or None,
        minor_faults=exit_record.minor_faults,
        major_faults=exit_record.major_faults,
        voluntary_switches=exit_record.voluntary_switches,
        involuntary_switches=exit_record.involuntary_switches,
    )


@attrs.frozen
class Outcome:
    """How a run ended, before its output is looked at."""

    returncode: int
    reason: Reason
    signal: int | None
    hits: frozenset[str]
    usage: Usage


def outcome(run: Run, state: Any, status: int) -> Outcome:
    """From the keeper's record, or from its absence."""
    if not state.exited:  # ended from outside (-ETIME), or the keeper was killed
        reason = _CAUSES.get(state.order_sent, Reason.KILLED) if status == -errno.ETIME else Reason.KILLED
        hits = frozenset({_HITS[reason]} if reason in _HITS else ())
        return Outcome(-signals.SIGKILL, reason, int(signals.SIGKILL), hits, Usage())
    returncode = os.waitstatus_to_exitcode(state.exit.status)
    number = -returncode if returncode < 0 else None
    reason = _CAUSES.get(state.exit.cause) or _own_end(run, number)
    hits = frozenset({_HITS[reason]} if reason in _HITS else ())
    if number == signals.SIGXFSZ:
        hits |= {"fsize"}
    return Outcome(returncode, reason, number, hits, _usage(state.exit))


def _own_end(run: Run, number: int | None) -> Reason:
    if number is None:
        return Reason.EXITED
    if number == signals.SIGXCPU and run.command.cpu_time is not None:
        return Reason.CPU_TIME
    if number == signals.SIGKILL and run.oom_kills is not None:
        now = run.session.oom_kills()
        if now is not None and now > run.oom_kills:  # the kernel's word for it
            return Reason.MEMORY
    return Reason.SIGNALED


def make_result(
    run: Run, state: Any, status: int, args: Any, *, stdout: bool, stderr: bool, decode: Callable[[bytes | None], Any]
) -> Result:
    """Everything about a finished run."""
    end = outcome(run, state, status)
    truncated = Truncated(bool(state.out.overflowed), bool(state.err.overflowed))
    return Result(
        args=args,
        returncode=end.returncode,
        stdout=decode(taken(state.out) if stdout else None),
        stderr=decode(taken(state.err) if stderr else None),
        reason=end.reason,
        signal=end.signal,
        limits_hit=end.hits | ({"output"} if truncated else set()),
        usage=end.usage,
        truncated=truncated,
        enforced=run.session.enforced,
    )
