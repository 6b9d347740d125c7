"""The one module that imports the extension: calls into C, with errno as OSError, and records as bytes.

Hazard: file descriptors are plain numbers here; whoever passes one in keeps it, whoever gets one out owns it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Sequence
from typing import Any

from sandboxkit._native import ffi, lib

STEP_NAMES: dict[int, str] = {
    number: name.removeprefix("SBX_STEP_").lower() for number, name in ffi.typeof("enum sbx_step").elements.items()
}
MAX_RECORD = 4096
RESOLVE_INSIDE = 0x10 | 0x2  # openat2(2): RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def above_stdio(fd: int) -> int:
    """The same file on a number that is nobody's standard stream. Takes the fd over.

    A caller may run with those closed; "the caller's stderr" must not turn out to be one of our sockets.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep the boundaries of records and pass fds."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if all(end.fileno() > 2 for end in ends):
        return ends
    ours, theirs = (socket.socket(fileno=above_stdio(end.detach())) for end in ends)
    return ours, theirs


def pipe() -> tuple[int, int]:
    """The end to read from and the end to write to."""
    read, write = os.pipe2(os.O_CLOEXEC)
    return above_stdio(read), above_stdio(write)


def send(sock: int, data: bytes, fds: Sequence[int] = ()) -> None:
    """One record, with file descriptors."""
    _checked(lib.sbx_send(sock, ffi.from_buffer(data), len(data), ffi.new("int[]", list(fds)), len(fds)))


def receive(sock: int, max_fds: int, timeout: float | None) -> tuple[bytes, list[int]]:
    """One record and the fds that came with it; b"" at the end. TimeoutError after so many seconds (None: never)."""
    data, fds, count = ffi.new("char[]", MAX_RECORD), ffi.new("int[]", max(1, max_fds)), ffi.new("int *")
    while True:
        length = lib.sbx_receive(
            sock, data, MAX_RECORD, fds, max_fds, count, -1 if timeout is None else round(timeout * 1000)
        )
        if length != -errno.EINTR:
            break
    _checked(length)
    return bytes(ffi.buffer(data, length)), [above_stdio(fd) for fd in fds[0 : count[0]]]


def openat2(dirfd: int, path: bytes, flags: int, mode: int = 0, resolve: int = RESOLVE_INSIDE) -> int:
    """openat2(2); by default nothing in the path leads out of dirfd."""
    return _checked(lib.sbx_openat2(dirfd, path, flags | os.O_CLOEXEC, mode, resolve))


def sealed_memfd(name: str, data: bytes) -> int:
    """A memory file with this content that nobody can change any more."""
    return above_stdio(_checked(lib.sbx_sealed_memfd(name.encode(), ffi.from_buffer(data), len(data))))


def record(ctype: str, **fields: Any) -> bytes:
    """The bytes of a struct of abi.h."""
    return bytes(ffi.buffer(ffi.new(f"{ctype} *", fields)))


def unrecord(ctype: str, data: bytes) -> Any:
    """A struct of abi.h from its bytes. Raises ValueError if there are too few."""
    if len(data) < ffi.sizeof(ctype):
        raise ValueError(f"{len(data)} bytes are no {ctype}")
    value = ffi.new(f"{ctype} *")
    ffi.memmove(value, data, ffi.sizeof(ctype))
    return value


__all__ = [
    "MAX_RECORD",
    "RESOLVE_INSIDE",
    "STEP_NAMES",
    "above_stdio",
    "ffi",
    "lib",
    "openat2",
    "pipe",
    "receive",
    "record",
    "sealed_memfd",
    "send",
    "socket_pair",
    "unrecord",
]
