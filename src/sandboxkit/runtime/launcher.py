"""The launcher process of this process: started when first needed, one for all threads, never shared with a fork.

It is exec'd from a sealed memory file, so that what runs is what was installed even if the file changes afterwards and
nothing inside a sandbox can reach or rewrite it (CVE-2019-5736).
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from importlib import resources

from sandboxkit.errors import launch_error
from sandboxkit.runtime import native
from sandboxkit.runtime.host import Authority, current_authority

INLINE_PLAN = 65536
_ID_LOCK_DIRECTORY = "/run/sandboxkit"
_lock = threading.Lock()
_current: Launcher | None = None
_binary: str | None = None
_faults: list[tuple[str, int, int]] = []


class Launcher:
    """One running launcher: a socket to it and the authority it works on."""

    def __init__(self, authority: Authority, connection: socket.socket) -> None:
        self.authority = authority
        self._connection = connection
        self._sending = threading.Lock()

    def create(self, plan: bytes, fds: Sequence[int]) -> None:
        """Ask for a sandbox; the answer comes on the status socket, the peer of `fds[1]`."""
        with self._sending:  # a fault is armed for the sandbox that follows it
            while _faults:
                step, error, hold_ms = _faults.pop(0)
                number = next(number for number, name in native.STEP_NAMES.items() if name == step)
                native.send(
                    self._connection.fileno(),
                    native.record(
                        "struct sbx_fault", kind=native.lib.SBX_FAULT, step=number, error=error, hold_ms=hold_ms
                    ),
                    (),
                )
            if len(plan) <= INLINE_PLAN:
                native.send(self._connection.fileno(), plan, fds)
                return
            body = native.sealed_memfd("sandboxkit-plan", plan)
            try:
                native.send(self._connection.fileno(), plan[:4] + len(plan).to_bytes(4, "little"), (*fds, body))
            finally:
                os.close(body)

    def close(self) -> None:
        """Let go: the launcher ends every sandbox it still has, and itself."""
        self._connection.close()


def current() -> Launcher:
    """This process's launcher, started if there is none. Raises `LaunchError` if it cannot be started."""
    global _current
    with _lock:
        if _current is None:
            _current = _start(current_authority())
        return _current


def discard(launcher: Launcher) -> None:
    """Forget a launcher that no longer answers; the next sandbox gets a new one."""
    global _current
    with _lock:
        if _current is launcher:
            _current = None
    launcher.close()


def use_binary(path: str | os.PathLike[str]) -> None:
    """Run another build of the launcher from now on: the test builds with fault injection or sanitizers."""
    global _binary
    _binary = os.fspath(path)
    with _lock:
        running = _current
    if running is not None:
        discard(running)


def inject(step: str, errno: int, hold_ms: int = 0) -> None:
    """Fail `step` of the next sandbox with `errno`, or hold it there for so long. Test builds of the launcher only."""
    _faults.append((step, errno, hold_ms))


def _image() -> int:
    if _binary is not None:
        with open(_binary, "rb") as file:
            return native.sealed_memfd("sandboxkit", file.read())
    return native.sealed_memfd("sandboxkit", resources.files("sandboxkit").joinpath("launcher").read_bytes())


def _id_lock() -> int:
    """The file whose bytes stand for id ranges (see idrange.c). Root only: nobody else may hold a range hostage."""
    os.makedirs(_ID_LOCK_DIRECTORY, mode=0o700, exist_ok=True)
    return os.open(f"{_ID_LOCK_DIRECTORY}/id-ranges.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _start(authority: Authority) -> Launcher:
    ours, theirs = native.socket_pair()
    opened: list[int] = []
    try:
        opened.append(_image())
        opened.append(theirs.detach())
        opened.append(native.above_stdio(os.pidfd_open(os.getpid())))
        lock = _id_lock() if authority.root else os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        opened.append(native.above_stdio(lock))
        _exec(authority, *opened)
    except OSError as error:
        ours.close()
        raise launch_error("launcher_start", error.errno or 0, error.filename) from error
    except BaseException:
        ours.close()
        raise
    finally:
        for fd in opened:
            os.close(fd)
    try:
        data, _ = native.receive(ours.fileno(), 0, None)
    except BaseException:
        ours.close()
        raise
    answer = native.unrecord("struct sbx_report", data) if data else None
    if answer is None or answer.kind != native.lib.SBX_READY:
        ours.close()
        if answer is None:
            raise launch_error("launcher_start", 0, None)
        raise launch_error(native.STEP_NAMES[answer.step], answer.error, None)
    return Launcher(authority, ours)


def _exec(authority: Authority, image: int, connection: int, caller: int, id_lock: int) -> None:
    """Start the image. The process we start forks and ends at once: no child of ours remains to be waited for."""
    subprocess.run(
        ["sandboxkit", str(connection), str(caller), str(id_lock), *authority.arguments()],
        executable=f"/proc/self/fd/{image}",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(image, connection, caller, id_lock),
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        cwd="/",
        start_new_session=True,
        check=True,
    )


def _after_fork() -> None:
    """The child of a fork has no launcher; what it inherited belongs to its parent."""
    global _lock, _current
    _lock = threading.Lock()
    if _current is not None:
        _current.close()
        _current = None


os.register_at_fork(after_in_child=_after_fork)
