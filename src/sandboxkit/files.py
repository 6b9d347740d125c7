"""`Sandbox.files`: reading and writing a sandbox's files from outside, with the rights of its user.

No path is ever resolved by the caller: init opens it inside the root and hands over the open file, so a link that a
program planted leads where it leads inside, and what the user may not touch raises PermissionError here as well.
"""

from __future__ import annotations

import builtins
import errno
import os
import posixpath
import stat as stat_module
from collections.abc import Iterator
from typing import Any

import attrs

from sandboxkit.runtime import native
from sandboxkit.runtime.session import Session
from sandboxkit.spec.paths import host_path, text_path

_KINDS = {
    stat_module.S_IFREG: "file",
    stat_module.S_IFDIR: "directory",
    stat_module.S_IFLNK: "symlink",
    stat_module.S_IFIFO: "fifo",
    stat_module.S_IFSOCK: "socket",
    stat_module.S_IFCHR: "char_device",
    stat_module.S_IFBLK: "block_device",
}
_CHUNK = 1 << 20
_AT_REMOVEDIR = 0x200


@attrs.frozen(kw_only=True)
class FileInfo:
    """One entry: kind is "file", "directory", "symlink", "fifo", "socket", "char_device" or "block_device"."""

    name: str
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime: float


@attrs.frozen
class Files:
    """The files of an open sandbox. Relative paths start at its working directory; errors are builtin OSErrors."""

    _session: Session

    # Reading

    def read_bytes(self, path: Any, *, max_bytes: int | None = None) -> bytes:
        """The content of a regular file; OSError(EFBIG) if it has more than `max_bytes`. Never blocks."""
        where = self._path(path)
        fd = self._open(where, os.O_RDONLY)
        with os.fdopen(fd, "rb") as file:
            self._require_regular(fd, where)
            if max_bytes is None:
                return file.read()
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise OSError(errno.EFBIG, f"more than {max_bytes} bytes", where)
        return data

    def read_text(
        self, path: Any, *, encoding: str = "utf-8", errors: str = "strict", max_bytes: int | None = None
    ) -> str:
        """The content of a regular file as text."""
        return self.read_bytes(path, max_bytes=max_bytes).decode(encoding, errors)

    def stat(self, path: Any) -> FileInfo:
        """What is there, links followed inside."""
        where = self._path(path)
        return self._info(where, 0)

    def exists(self, path: Any) -> bool:
        """Whether the path leads to anything the user can see."""
        try:
            self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def list(self, path: Any = ".") -> builtins.list[FileInfo]:
        """The entries of a directory, by name; links are not followed."""
        where = self._path(path)
        return [self._info(posixpath.join(where, name), os.O_NOFOLLOW) for name in self._names(where)]

    # Writing

    def write_bytes(self, path: Any, data: bytes, *, mode: int = 0o644) -> None:
        """Replace the content of a file, owned by the sandbox's user; parents are made."""
        where = self._path(path)
        self._make_parents(where)
        fd = self._open(where, os.O_WRONLY | os.O_CREAT, mode)
        with os.fdopen(fd, "wb") as file:
            self._require_regular(fd, where)
            os.ftruncate(fd, 0)
            file.write(data)

    def write_text(self, path: Any, text: str, *, encoding: str = "utf-8", mode: int = 0o644) -> None:
        """Replace the content of a file with text."""
        self.write_bytes(path, text.encode(encoding), mode=mode)

    def mkdir(self, path: Any, *, mode: int = 0o755, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory, as `pathlib.Path.mkdir` does."""
        where = self._path(path)
        if parents:
            self._make_parents(where)
        try:
            self._request(native.lib.SBX_FILE_MKDIR, where, mode=mode)
        except FileExistsError:
            if not exist_ok or self._info(where, 0).kind != "directory":
                raise

    def remove(self, path: Any, *, recursive: bool = False) -> None:
        """Remove a file, a link or an empty directory; `recursive` takes a directory with all that is in it."""
        where = self._path(path)
        if self._info(where, os.O_NOFOLLOW).kind != "directory":
            self._request(native.lib.SBX_FILE_REMOVE, where)
            return
        pending = [where]
        while pending:  # children before parents, and no recursion: the depth is the program's choice
            current = pending[-1]
            children = [posixpath.join(current, name) for name in self._names(current)] if recursive else []
            if not children:
                self._request(native.lib.SBX_FILE_REMOVE, current, flags=_AT_REMOVEDIR)
                pending.pop()
            for child in children:
                if self._info(child, os.O_NOFOLLOW).kind == "directory":
                    pending.append(child)
                else:
                    self._request(native.lib.SBX_FILE_REMOVE, child)

    # Between here and there

    def copy_in(self, source: Any, target: Any) -> None:
        """Copy a file or a directory tree of the host into the sandbox; modes are kept, links are followed."""
        origin, where = host_path(source, "source"), self._path(target)
        if not os.path.isdir(origin):
            self._copy_file_in(origin, where)
            return
        for directory, _, names in os.walk(origin, followlinks=False):
            inside = posixpath.normpath(posixpath.join(where, os.path.relpath(directory, origin)))
            self.mkdir(
                inside, mode=stat_module.S_IMODE(os.stat(directory).st_mode) | 0o700, parents=True, exist_ok=True
            )
            for name in names:
                self._copy_file_in(os.path.join(directory, name), posixpath.join(inside, name))

    def copy_out(self, source: Any, target: Any) -> None:
        """Copy a file or a directory tree out. Only regular files and directories come out; set-id bits do not."""
        where, goal = self._path(source), host_path(target, "target")
        for inside, info in self._walk(where):
            outside = goal if inside == where else os.path.join(goal, posixpath.relpath(inside, where))
            if info.kind == "directory":
                os.makedirs(outside, exist_ok=True)
            elif info.kind == "file":
                self._copy_file_out(inside, outside, info.mode & 0o777)
            elif inside == where:
                raise OSError(errno.EINVAL, f"a {info.kind} is not copied out", where)

    def _copy_file_in(self, origin: str, where: str) -> None:
        with open(origin, "rb") as file:
            mode = stat_module.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o777
            self._make_parents(where)
            fd = self._open(where, os.O_WRONLY | os.O_CREAT, mode)
            with os.fdopen(fd, "wb") as copy:
                self._require_regular(fd, where)
                os.ftruncate(fd, 0)
                while chunk := file.read(_CHUNK):
                    copy.write(chunk)

    def _copy_file_out(self, inside: str, outside: str, mode: int) -> None:
        fd = self._open(inside, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            self._require_regular(fd, inside)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(outside, flags, mode), "wb") as copy:
                while chunk := file.read(_CHUNK):
                    copy.write(chunk)

    def _walk(self, where: str) -> Iterator[tuple[str, FileInfo]]:
        pending = [(where, self._info(where, 0))]
        while pending:
            current, info = pending.pop()
            yield current, info
            if info.kind == "directory":
                paths = [posixpath.join(current, name) for name in self._names(current)]
                pending += [(path, self._info(path, os.O_NOFOLLOW)) for path in paths]

    # One question to init

    def _path(self, path: Any) -> str:
        return posixpath.join(self._session.cwd, text_path(path, "path"))

    def _request(self, verb: int, path: str, *, flags: int = 0, mode: int = 0) -> int:
        """The fd that came back, or -1. Raises the OSError that the operation gave inside."""
        self._session.check_open()
        ours, theirs = native.socket_pair()
        with ours:
            with theirs:
                record = native.record("struct sbx_file", kind=native.lib.SBX_FILE, verb=verb, flags=flags, mode=mode)
                raw = os.fsencode(path)
                if len(raw) >= 4096:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
                native.send(self._session.control_fd, record + raw + b"\0", [theirs.fileno()])
            data, fds = native.receive(ours.fileno(), 1, None)
        answer = native.unrecord("struct sbx_report", data) if data else None
        if answer is None:
            self._session.check_open()
            raise OSError(errno.EPIPE, "the sandbox has ended", path)
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error), path)
        return fds[0] if fds else -1

    def _open(self, path: str, flags: int, mode: int = 0) -> int:
        return self._request(native.lib.SBX_FILE_OPEN, path, flags=flags, mode=mode)

    def _require_regular(self, fd: int, path: str) -> None:
        kind = stat_module.S_IFMT(os.fstat(fd).st_mode)
        if kind == stat_module.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if kind != stat_module.S_IFREG:
            raise OSError(errno.EINVAL, "not a regular file", path)

    def _info(self, path: str, flags: int) -> FileInfo:
        fd = self._open(path, os.O_PATH | flags)
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        uid, gid = self._session.inside_ids(found.st_uid, found.st_gid)
        return FileInfo(
            name=posixpath.basename(path.rstrip("/")) or "/",
            kind=_KINDS.get(stat_module.S_IFMT(found.st_mode), "unknown"),
            size=found.st_size,
            mode=stat_module.S_IMODE(found.st_mode),
            uid=uid,
            gid=gid,
            mtime=found.st_mtime,
        )

    def _names(self, path: str) -> builtins.list[str]:
        fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def _make_parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        missing: list[str] = []
        while parent not in ("", "/"):
            try:
                self._request(native.lib.SBX_FILE_MKDIR, parent, mode=0o755)
            except FileExistsError:
                break
            except FileNotFoundError:
                missing.append(parent)
                parent = posixpath.dirname(parent)
                continue
            except PermissionError:
                break  # opening the file will say what may not be done
            except OSError as error:
                if error.errno == errno.EROFS:
                    break
                raise
            break
        for directory in reversed(missing):
            self._request(native.lib.SBX_FILE_MKDIR, directory, mode=0o755)
