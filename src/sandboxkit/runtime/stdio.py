"""The three standard streams of a run: what a caller may say for them, and the fds that come of it."""

from __future__ import annotations

import codecs
import io
import os
import subprocess
from typing import IO, Any

import attrs

from sandboxkit.errors import SpecError
from sandboxkit.runtime import native

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL


@attrs.define
class Streams:
    """Fds for the child (0, 1, 2) and our ends of its pipes; every one of them is closed by `close`, unless taken."""

    child: list[int] = attrs.field(factory=list)
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    _opened: list[int] = attrs.field(factory=list)

    def close_child(self) -> None:
        """Ours alone are the ends we keep: the child's would hide the end of its streams from us."""
        for fd in self._opened:
            os.close(fd)
        self._opened = []

    def take(self, name: str) -> int:
        """The fd, from now on the taker's to close."""
        fd: int = getattr(self, name)
        setattr(self, name, -1)
        return fd

    def close(self) -> None:
        self.close_child()
        for name in ("stdin", "stdout", "stderr"):
            fd = self.take(name)
            if fd >= 0:
                os.close(fd)

    def _own(self, fd: int) -> int:
        self._opened.append(fd)
        return fd

    def _null(self) -> int:
        return self._own(native.above_stdio(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)))

    def _pipe(self, name: str, *, child_reads: bool) -> int:
        read, write = native.pipe()
        setattr(self, name, write if child_reads else read)
        return self._own(read if child_reads else write)

    def _given(self, name: str, number: int, value: Any) -> int:
        if value is None:
            try:
                os.fstat(number)
            except OSError:  # the caller runs without it
                return self._null()
            return number
        if value == DEVNULL:
            return self._null()
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        try:
            return int(value.fileno())
        except (AttributeError, io.UnsupportedOperation):
            raise SpecError(name, value, "PIPE, DEVNULL, a file with a descriptor, a descriptor, or None") from None

    def connect(self, stdin: Any, stdout: Any, stderr: Any) -> None:
        """Fill in everything. On an error the caller closes what has been opened so far."""
        if stdin == STDOUT or stdout == STDOUT:
            raise SpecError(
                "stdin" if stdin == STDOUT else "stdout", STDOUT, "anything but STDOUT, which is for stderr"
            )
        self.child.append(self._pipe("stdin", child_reads=True) if stdin == PIPE else self._given("stdin", 0, stdin))
        self.child.append(
            self._pipe("stdout", child_reads=False) if stdout == PIPE else self._given("stdout", 1, stdout)
        )
        if stderr == STDOUT:
            self.child.append(self.child[1])
        elif stderr == PIPE:
            self.child.append(self._pipe("stderr", child_reads=False))
        else:
            self.child.append(self._given("stderr", 2, stderr))

    def connect_terminal(self) -> None:
        """A new terminal for all three; what is typed and what is printed go through its other side, `stdout`."""
        master, peer = (native.above_stdio(fd) for fd in os.openpty())
        self.stdout = master
        self.child = [self._own(peer)] * 3


@attrs.frozen
class Text:
    """How bytes become text: not at all, or by a codec."""

    encoding: str | None = None
    errors: str = "replace"

    def decode(self, data: bytes | None) -> bytes | str | None:
        if data is None or self.encoding is None:
            return data
        return data.decode(self.encoding, self.errors).replace("\r\n", "\n").replace("\r", "\n")

    def encode(self, data: Any) -> bytes:
        if isinstance(data, str):
            if self.encoding is None:
                raise SpecError("input", data, "bytes, or text together with text=True")
            return data.encode(self.encoding, self.errors)
        if self.encoding is not None and data:
            raise SpecError("input", data, "text, as text=True was given")
        return bytes(data)

    def wrap(self, stream: IO[bytes], *, write: bool = False) -> IO[Any]:
        if self.encoding is None:
            return stream
        return io.TextIOWrapper(stream, self.encoding, self.errors, write_through=write)


def make_text(text: Any, universal_newlines: Any, encoding: str | None, errors: str | None) -> Text:
    """subprocess's rule: any of these turns text mode on; UTF-8 and "replace" unless told otherwise."""
    if not (text or universal_newlines or encoding or errors):
        return Text()
    try:
        codecs.lookup(encoding or "utf-8")
        codecs.lookup_error(errors or "replace")
    except LookupError as error:
        raise SpecError("encoding" if encoding else "errors", encoding or errors, str(error)) from None
    return Text(encoding or "utf-8", errors or "replace")
