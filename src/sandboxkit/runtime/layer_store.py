"""Freezing an overlay's upper directory as a layer of its own: what `commit()` makes.

The source is read by directory fds only and links are never followed: all of it was written by a sandboxed program.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable

from sandboxkit.errors import ImageError
from sandboxkit.runtime.store import building, store_directory

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_DEPTH = 10_000
Ids = Callable[[int, int], tuple[int, int]]


def freeze_upper(upper_fd: int, *, id_shift: Ids, xattr_prefix: str) -> str:
    """A copy of the upper directory in the store, owners shifted back, whiteouts and opaque marks kept; its path."""
    directory = store_directory("layers")
    name = secrets.token_hex(16)
    try:
        with building(directory, name) as root:
            target = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=upper_fd)
                _Copy(id_shift, xattr_prefix).tree(source, target)
            finally:
                os.close(target)
    except OSError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"the upper layer could not be copied: {error.strerror}", errno=error.errno or 0) from error
    return os.path.join(directory, name)


class _Copy:
    def __init__(self, id_shift: Ids, xattr_prefix: str) -> None:
        self._id_shift = id_shift
        self._opaque = f"{xattr_prefix}overlay.opaque"
        self._root = os.geteuid() == 0
        self._links: dict[tuple[int, int], tuple[str, ...]] = {}

    def tree(self, source: int, target: int) -> None:
        """Depth first with an explicit stack of fds: the depth is the program's choice. Takes over `source`."""
        stack: list[tuple[int, int, list[str], tuple[str, ...]]] = [(source, os.dup(target), os.listdir(source), ())]
        self._base = target
        try:
            while stack:
                source, target, names, path = stack[-1]
                if not names:
                    self._finish_directory(source, target)
                    stack.pop()
                    os.close(source)
                    os.close(target)
                    continue
                name = names.pop()
                info = os.stat(name, dir_fd=source, follow_symlinks=False)
                if not stat.S_ISDIR(info.st_mode):
                    self._entry(source, target, name, info, (*path, name))
                    continue
                if len(stack) > _MAX_DEPTH:
                    raise ImageError("directories nested too deep")
                os.mkdir(name, 0o700, dir_fd=target)
                inner = os.open(name, _READ | os.O_DIRECTORY, dir_fd=source)
                stack.append(
                    (inner, os.open(name, _READ | os.O_DIRECTORY, dir_fd=target), os.listdir(inner), (*path, name))
                )
        finally:
            for source, target, _, _ in stack:
                os.close(source)
                os.close(target)

    def _entry(self, source: int, target: int, name: str, info: os.stat_result, path: tuple[str, ...]) -> None:
        if info.st_nlink > 1 and self._link(info, target, name, path):
            return
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFREG:
            self._file(source, target, name)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, 0o600, dir_fd=target)
        elif kind == stat.S_IFCHR and info.st_rdev == 0:  # a whiteout: the name is gone
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=target)
            return
        else:
            return  # sockets live as long as whoever listens; other devices cannot be made inside
        self._metadata(target, name, info)

    def _link(self, info: os.stat_result, target: int, name: str, path: tuple[str, ...]) -> bool:
        first = self._links.get((info.st_dev, info.st_ino))
        if first is None:
            self._links[(info.st_dev, info.st_ino)] = path
            return False
        os.link("/".join(first), name, src_dir_fd=self._base, dst_dir_fd=target, follow_symlinks=False)
        return True

    def _file(self, source: int, target: int, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            open(os.open(name, _READ, dir_fd=source), "rb", buffering=0) as origin,
            open(os.open(name, flags, 0o600, dir_fd=target), "wb", buffering=0) as copy,
        ):
            size, position = os.fstat(origin.fileno()).st_size, 0
            os.ftruncate(copy.fileno(), size)
            while position < size:  # holes stay holes
                try:
                    start = os.lseek(origin.fileno(), position, os.SEEK_DATA)
                except OSError:  # ENXIO: nothing but a hole is left
                    return
                end = os.lseek(origin.fileno(), start, os.SEEK_HOLE)
                os.lseek(origin.fileno(), start, os.SEEK_SET)
                os.lseek(copy.fileno(), start, os.SEEK_SET)
                while start < end:
                    chunk = os.read(origin.fileno(), min(1 << 20, end - start))
                    if not chunk:
                        return
                    start += os.write(copy.fileno(), chunk)
                position = end

    def _metadata(self, target: int, name: str, info: os.stat_result) -> None:
        if self._root:
            os.chown(name, *self._id_shift(info.st_uid, info.st_gid), dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, stat.S_IMODE(info.st_mode) & (0o7777 if self._root else 0o777), dir_fd=target)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _finish_directory(self, source: int, target: int) -> None:
        info = os.fstat(source)
        with contextlib.suppress(OSError):  # ENODATA: not an opaque one
            os.setxattr(target, self._opaque, os.getxattr(source, self._opaque))
        if self._root:
            os.chown(target, *self._id_shift(info.st_uid, info.st_gid))
        os.chmod(target, stat.S_IMODE(info.st_mode))
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
