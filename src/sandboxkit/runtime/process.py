"""`run` and `popen`: subprocess's two faces on a run."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal as signals
import subprocess
import threading
import warnings
from typing import IO, Any

from sandboxkit.errors import SpecError, UnsupportedError
from sandboxkit.result import Reason, Result, Usage
from sandboxkit.runtime import native
from sandboxkit.runtime import run as runs
from sandboxkit.runtime.command import Command, Defaults, make_command
from sandboxkit.runtime.session import Session
from sandboxkit.runtime.stdio import DEVNULL, PIPE, STDOUT, Streams, Text, make_text
from sandboxkit.spec import User
from sandboxkit.spec.sizes import parse_seconds, parse_size

DEFAULT_MAX_OUTPUT = "64M"
_UNLIMITED = 2**63 - 1


def _check_user(defaults: Defaults, user: Any) -> None:
    if user is None:
        return
    if not isinstance(user, User):
        raise SpecError("user", user, "a User")
    if user != defaults.user:
        raise UnsupportedError(
            "another user for one run",
            tried="the sandbox's init, which is one user",
            fix="Sandbox(user=...) for each user",
        )


def _check_limits(limits: Any) -> None:
    if limits is not None:
        raise UnsupportedError(
            "limits for one run",
            tried="cgroups, of which this version makes one per sandbox",
            fix="Sandbox(limits=...)",
        )


def _terminal_streams(pty: bool, stdin: Any, stdout: Any, stderr: Any) -> bool:
    if pty and (stdin, stdout, stderr) != (DEVNULL, PIPE, PIPE):
        raise SpecError("pty", True, "no stdin, stdout or stderr besides it: the terminal is all three")
    return bool(pty)


def _captured(capture_output: bool, stdout: Any, stderr: Any) -> tuple[Any, Any]:
    if capture_output and (stdout is not PIPE or stderr is not PIPE):
        raise SpecError("capture_output", True, "no stdout or stderr besides it")
    return stdout, stderr


def run(
    session: Session,
    defaults: Defaults,
    args: Any,
    *,
    input: Any = None,
    stdin: Any = DEVNULL,
    stdout: Any = PIPE,
    stderr: Any = PIPE,
    capture_output: bool = False,
    text: Any = None,
    universal_newlines: Any = None,
    encoding: str | None = None,
    errors: str | None = None,
    check: bool = False,
    timeout: Any = None,
    cpu_time: Any = None,
    max_output: Any = DEFAULT_MAX_OUTPUT,
    on_overflow: str = "truncate",
    env: Any = None,
    cwd: Any = None,
    user: Any = None,
    limits: Any = None,
    pass_fds: Any = (),
    pty: bool = False,
) -> Result:
    """See `Sandbox.run`."""
    _check_user(defaults, user)
    _check_limits(limits)
    stdout, stderr = _captured(capture_output, stdout, stderr)
    terminal = _terminal_streams(pty, stdin, stdout, stderr)
    if input is not None:
        if stdin not in (DEVNULL, PIPE) or terminal:
            raise SpecError("input", "...", "no stdin besides it")
        stdin = PIPE
    seconds = None if timeout is None else parse_seconds(timeout, "timeout")
    keep = _UNLIMITED if max_output is None else parse_size(max_output, "max_output")
    if on_overflow not in ("truncate", "kill"):
        raise SpecError("on_overflow", on_overflow, '"truncate" or "kill"')
    mode = make_text(text, universal_newlines, encoding, errors)
    command = make_command(defaults, args, env=env, cwd=cwd, cpu_time=cpu_time, pass_fds=pass_fds, terminal=terminal)
    data = mode.encode(input) if input is not None else b""
    streams = Streams()
    try:
        streams.connect_terminal() if terminal else streams.connect(stdin, stdout, stderr)
        current = runs.start(session, command, streams.child, 0)
        streams.close_child()
        try:
            return _finish(current, streams, args, data, seconds, keep, on_overflow, check, mode)
        except BaseException:
            current.abandon()
            raise
        finally:
            current.close()
    finally:
        streams.close()


def _finish(
    current: runs.Run,
    streams: Streams,
    args: Any,
    data: bytes,
    seconds: float | None,
    keep: int,
    on_overflow: str,
    check: bool,
    mode: Text,
) -> Result:
    state = runs.new_state(
        current, stdin=streams.take("stdin"), stdout=streams.stdout, stderr=streams.stderr, keep=keep
    )
    buffer = native.ffi.from_buffer(data)
    state.input, state.input_len = buffer, len(data)
    state.kill_on_overflow = on_overflow == "kill"
    state.deadline_ns, state.deadline_kills = runs.deadline(seconds), 1
    captured = streams.stdout >= 0, streams.stderr >= 0
    try:
        status = runs.wait(current, state)
    finally:
        if state.stdin_fd >= 0:
            os.close(state.stdin_fd)
    if state.failed.kind == native.lib.SBX_FAILED:
        raise runs.launch_failure(current.command, state.failed)
    if status == -errno.ETIME:
        current.session.kill_sandbox()
    elif not state.exited:
        runs.settle(current)
    result = runs.make_result(current, state, status, args, stdout=captured[0], stderr=captured[1], decode=mode.decode)
    return result.check() if check else result


class Process:
    """A command that is running, with `subprocess.Popen`'s names. Made by `Sandbox.popen` only.

    Its descendants live until `close()`, `kill()` or the end of the `with` block, whatever the main process does;
    a handle that is dropped kills them and warns. `pid` is the process as the caller's system sees it.
    """

    args: Any
    stdin: IO[Any] | None
    stdout: IO[Any] | None
    stderr: IO[Any] | None
    pid: int

    def __init__(self) -> None:
        raise TypeError("a Process is made by Sandbox.popen()")

    def _set_up(self, current: runs.Run, args: Any, streams: Streams, mode: Text, pid: int, pidfd: int) -> None:
        self.args, self.pid = args, pid
        self._run, self._mode, self._pidfd = current, mode, pidfd
        self._outcome: runs.Outcome | None = None
        self._waiting = threading.Lock()
        self._state: Any = None  # of an unfinished communicate()
        self._closed = False
        terminal = current.command.terminal
        self.stdin = self._open(os.dup(streams.stdout) if terminal else streams.take("stdin"), "wb")
        self.stdout = self._open(streams.take("stdout"), "rb")
        self.stderr = self._open(streams.take("stderr"), "rb")

    def _open(self, fd: int, mode: str) -> IO[Any] | None:
        if fd < 0:
            return None
        return self._mode.wrap(os.fdopen(fd, mode), write=mode == "wb")

    def __repr__(self) -> str:
        return f"<Process {self.args!r} pid {self.pid} returncode {self.returncode}>"

    # How it stands

    @property
    def returncode(self) -> int | None:
        """As subprocess has it: None until the end was seen by `poll`, `wait` or `communicate`."""
        return None if self._outcome is None else self._outcome.returncode

    @property
    def reason(self) -> Reason | None:
        """Why the main process ended, once it has."""
        return None if self._outcome is None else self._outcome.reason

    @property
    def usage(self) -> Usage | None:
        """What the main process and everything reaped by then used, once it has ended."""
        return None if self._outcome is None else self._outcome.usage

    def poll(self) -> int | None:
        """The return code if the main process has ended, else None."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the main process; `subprocess.TimeoutExpired` if it takes longer than `timeout` seconds."""
        seconds = None if timeout is None else parse_seconds(timeout, "timeout")
        with self._waiting:
            if self._outcome is None:
                state = runs.new_state(self._run)
                state.deadline_ns = runs.deadline(seconds)
                status = runs.wait(self._run, state)
                if status == -errno.ETIMEDOUT:
                    raise subprocess.TimeoutExpired(self.args, seconds or 0.0)
                self._ended(state, status)
            assert self._outcome is not None
            return self._outcome.returncode

    def _ended(self, state: Any, status: int) -> None:
        if not state.exited and not self._closed:
            runs.settle(self._run)
        self._outcome = runs.outcome(self._run, state, status)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Send input, read both streams to their end, wait. After `TimeoutExpired` it can be called again."""
        seconds = None if timeout is None else parse_seconds(timeout, "timeout")
        with self._waiting:
            state = self._state = self._state or self._conversation(input)
            state.deadline_ns = runs.deadline(seconds)
            if self._outcome is not None:
                state.exited = 1
            status = runs.wait(self._run, state)
            if status == -errno.ETIMEDOUT:
                raise subprocess.TimeoutExpired(
                    self.args,
                    seconds or 0.0,
                    output=runs.taken(state.out) or None,
                    stderr=runs.taken(state.err) or None,
                )
            if self._outcome is None:
                self._ended(state, status)
            outputs = tuple(
                None if stream is None else self._mode.decode(runs.taken(data))
                for stream, data in ((self.stdout, state.out), (self.stderr, state.err))
            )
            for stream in (self.stdin, self.stdout, self.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._state = None
            return outputs[0], outputs[1]

    def _conversation(self, input: Any) -> Any:
        data = b"" if input is None else self._mode.encode(input)
        if data and self.stdin is None:
            raise SpecError("input", "...", "a process whose stdin is PIPE")
        fds = [-1 if stream is None or stream.closed else stream.fileno() for stream in (self.stdout, self.stderr)]
        stdin = -1
        if self.stdin is not None and not self.stdin.closed and not self._run.command.terminal:
            self.stdin.flush()
            stdin = os.dup(self.stdin.fileno())
            self.stdin.close()
        state = runs.new_state(self._run, stdin=stdin, stdout=fds[0], stderr=fds[1], keep=_UNLIMITED)
        self._input = native.ffi.from_buffer(data)  # must outlive the state
        state.input, state.input_len, state.until_eof = self._input, len(data), 1
        return state

    # Ending it

    def send_signal(self, number: int) -> None:
        """Send a signal to the main process; nothing happens if it has ended."""
        if self.poll() is None:
            self._run.signal(int(number))

    def terminate(self) -> None:
        """SIGTERM to the main process."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """End the whole tree of this run."""
        if not self._closed:
            self._run.kill()

    def close(self) -> None:
        """End what is left of the run, close the streams, and wait until nothing is left. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with self._waiting:
            if self._outcome is None:
                self._run.kill()
                state = runs.new_state(self._run)
                state.deadline_ns = runs.deadline(runs.GRACE)
                status = runs.wait(self._run, state)
                self._outcome = runs.outcome(self._run, state, status)
            self._run.abandon()
            os.close(self._pidfd)
            for stream in (self.stdin, self.stdout, self.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None:
            for stream in (self.stdout, self.stderr, self.stdin):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self.wait()
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            if self._run.session.closed:
                self._closed = True
                os.close(self._pidfd)
                return
            warnings.warn(
                f"{self!r} was dropped without close(): its processes are killed",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            self.close()


def popen(
    session: Session,
    defaults: Defaults,
    args: Any,
    *,
    stdin: Any = DEVNULL,
    stdout: Any = PIPE,
    stderr: Any = PIPE,
    text: Any = None,
    universal_newlines: Any = None,
    encoding: str | None = None,
    errors: str | None = None,
    cpu_time: Any = None,
    env: Any = None,
    cwd: Any = None,
    user: Any = None,
    limits: Any = None,
    pass_fds: Any = (),
    pty: bool = False,
) -> Process:
    """See `Sandbox.popen`."""
    _check_user(defaults, user)
    _check_limits(limits)
    terminal = _terminal_streams(pty, stdin, stdout, stderr)
    mode = make_text(text, universal_newlines, encoding, errors)
    command = make_command(defaults, args, env=env, cwd=cwd, cpu_time=cpu_time, pass_fds=pass_fds, terminal=terminal)
    streams = Streams()
    try:
        streams.connect_terminal() if terminal else streams.connect(stdin, stdout, stderr)
        current = runs.start(session, command, streams.child, native.lib.SBX_RUN_LINGER | native.lib.SBX_RUN_STARTED)
        streams.close_child()
        try:
            pid, pidfd = _await_start(current, command)
        except BaseException:
            current.abandon()
            raise
        process = Process.__new__(Process)
        process._set_up(current, args, streams, mode, pid, pidfd)
        return process
    finally:
        streams.close()


def _await_start(current: runs.Run, command: Command) -> tuple[int, int]:
    data, fds = native.receive(current.reply_fd, 1, None)
    if len(data) >= native.ffi.sizeof("struct sbx_report"):
        report = native.unrecord("struct sbx_report", data)
        if report.kind == native.lib.SBX_FAILED:
            raise runs.launch_failure(command, report)
        if report.kind == native.lib.SBX_STARTED and fds:
            return _host_pid(fds[0]), fds[0]
    raise OSError(errno.EPROTO, "the run's keeper ended before it had started the command")


def _host_pid(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
        found = re.search(r"^Pid:\s*(-?\d+)$", lines.read(), re.MULTILINE)
    return int(found.group(1)) if found else -1


__all__ = ["DEVNULL", "PIPE", "STDOUT", "Process", "popen", "run"]
