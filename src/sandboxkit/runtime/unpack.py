"""Unpacking a flat tar into a root that is kept: once for each content, whole or not at all, never a byte outside.

Only tar headers are read by the standard library; every name is resolved here, from a directory fd of the new root
with openat2 (RESOLVE_IN_ROOT, no magic links), because extraction filters have been bypassed repeatedly
(CVE-2025-4517).
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import stat
import tarfile
import threading
import zlib
from typing import IO, cast

import attrs

from sandboxkit.errors import ImageError
from sandboxkit.runtime import native
from sandboxkit.runtime.store import building, locked, store_directory
from sandboxkit.spec.unpack_limits import UnpackLimits

_CHUNK = 1 << 20
_known: dict[tuple[str | int, ...], str] = {}
_known_lock = threading.Lock()


@attrs.frozen
class CachedRoot:
    """An unpacked root: read-only by convention, shared by every sandbox that uses the same content."""

    path: str
    digest: str


def check_directory(path: str) -> str:
    """The path if it is a directory. Raises `ImageError`."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return path
    except OSError as error:
        raise ImageError(error.strerror or "unreadable", path=path, errno=error.errno or 0) from error
    raise ImageError("not a directory", path=path, errno=errno.ENOTDIR)


def unpack_tar(path: str, *, limits: UnpackLimits | None = None) -> CachedRoot:
    """The root of an archive, unpacked if this content has not been yet. Raises `ImageError`."""
    try:
        with open(path, "rb") as archive:
            info = os.fstat(archive.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise ImageError("not a regular file", path=path)
            digest = _digest(archive, (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns))
            directory = store_directory("rootfs")
            final = os.path.join(directory, digest)
            if not os.path.isdir(final):
                with locked(directory, digest):
                    if not os.path.isdir(final):
                        archive.seek(0)
                        with building(directory, digest) as root:
                            _unpack(archive, path, root, info.st_size, limits or UnpackLimits())
            return CachedRoot(final, digest)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(error.strerror or str(error), path=path, errno=error.errno or 0) from error


def _digest(archive: IO[bytes], identity: tuple[int, ...]) -> str:
    """sha256 of the content; remembered for as long as the file is unchanged to the nanosecond."""
    with _known_lock:
        known = _known.get(identity)
    if known is not None:
        return known
    digest = hashlib.sha256()
    while chunk := archive.read(_CHUNK):
        digest.update(chunk)
    with _known_lock:
        _known[identity] = digest.hexdigest()
    return digest.hexdigest()


def _unpack(archive: IO[bytes], path: str, root: str, size: int, limits: UnpackLimits) -> None:
    if size == 0:
        raise ImageError("an empty file is no archive", path=path)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        stream = _plain(archive)
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as members:
            tree = _Tree(fd, path, size, limits)
            for member in members:
                tree.add(member, members)
            tree.finish()
            if not tree.entries:
                raise ImageError("no entries: not an archive, or an empty one", path=path)
        for _ in range(limits.max_bytes // _CHUNK):  # to the very end, where gzip has its checksum
            if not stream.read(_CHUNK):
                break
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise ImageError(f"not a readable tar: {error}", path=path) from error
    finally:
        os.close(fd)


def _plain(archive: IO[bytes]) -> IO[bytes]:
    """The tar itself, by what the file begins with and not by what it is called."""
    magic = archive.read(2)
    archive.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=archive)) if magic == b"\x1f\x8b" else archive


class _Tree:
    """The root being filled."""

    def __init__(self, fd: int, archive: str, size: int, limits: UnpackLimits) -> None:
        self._fd, self._archive, self._limits = fd, archive, limits
        self._budget = min(limits.max_bytes, max(size, 1 << 20) * limits.max_ratio)
        self._privileged = os.geteuid() == 0
        self._directories: dict[str, tarfile.TarInfo] = {}
        self.entries = 0

    def add(self, member: tarfile.TarInfo, members: tarfile.TarFile) -> None:
        self.entries += 1
        if self.entries > self._limits.max_entries:
            raise self._refuse(member, f"more than {self._limits.max_entries} entries")
        name = self._name(member, member.name)
        try:
            self._place(name, member, members)
        except OSError as error:
            raise self._refuse(member, error.strerror or str(error), error.errno or 0) from error

    def finish(self) -> None:
        """Modes and times of directories come last: filling a directory needs the right and changes the time."""
        for name, member in sorted(self._directories.items(), reverse=True):
            fd = native.openat2(self._fd, os.fsencode(name or "."), os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._apply(fd, member)
            finally:
                os.close(fd)

    def _refuse(self, member: tarfile.TarInfo, reason: str, number: int = 0) -> ImageError:
        return ImageError(reason, path=self._archive, member=member.name[:200], errno=number)

    def _name(self, member: tarfile.TarInfo, raw: str) -> str:
        """Relative to the root; "" is the root itself."""
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in raw:
            raise self._refuse(member, "a name with '..' or NUL")
        if len(parts) > self._limits.max_depth or any(len(os.fsencode(part)) > 255 for part in parts):
            raise self._refuse(member, "a name too deep or too long", errno.ENAMETOOLONG)
        name = "/".join(parts)
        if len(os.fsencode(name)) >= 4096:
            raise self._refuse(member, "a name too long", errno.ENAMETOOLONG)
        return name

    def _place(self, name: str, member: tarfile.TarInfo, members: tarfile.TarFile) -> None:
        if not name:
            if not member.isdir():
                raise self._refuse(member, "only a directory can be the root")
            self._directories[""] = member
            return
        head, _, last = name.rpartition("/")
        parent = self._parent(head)
        try:
            if member.isdir():
                self._make_directory(parent, last, name, member)
            elif member.isreg():
                self._make_file(parent, last, member, members)
            elif member.issym():
                self._clear(parent, last)
                os.symlink(member.linkname, last, dir_fd=parent)
                self._own(last, parent, member)
            elif member.islnk():
                self._make_link(parent, last, member)
            elif member.isfifo():
                self._clear(parent, last)
                os.mkfifo(last, 0o600, dir_fd=parent)
                os.chmod(last, member.mode & 0o777, dir_fd=parent)
                self._own(last, parent, member)
            elif not (member.ischr() or member.isblk()):  # devices are left out: every mount is nodev anyway
                raise self._refuse(member, f"an entry of unknown type {member.type!r}")
        finally:
            os.close(parent)

    def _parent(self, head: str) -> int:
        """The directory an entry goes into, links followed inside the root; missing ones are made."""
        if not head:
            return os.dup(self._fd)
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            return native.openat2(self._fd, os.fsencode(head), flags)
        except FileNotFoundError:
            above, _, last = head.rpartition("/")
            parent = self._parent(above)
            try:
                os.mkdir(last, 0o755, dir_fd=parent)
            finally:
                os.close(parent)
            return native.openat2(self._fd, os.fsencode(head), flags)

    def _clear(self, parent: int, last: str) -> None:
        """A later entry replaces an earlier one, whatever either was."""
        try:
            found = os.stat(last, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(last, dir_fd=parent)
            return
        pending = [
            (
                os.open(last, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent),
                last,
                os.dup(parent),
            )
        ]
        while pending:
            directory, name, above = pending[-1]
            child = next(iter(os.listdir(directory)), None)
            if child is None:
                pending.pop()
                os.close(directory)
                os.rmdir(name, dir_fd=above)
                os.close(above)
            elif stat.S_ISDIR(os.stat(child, dir_fd=directory, follow_symlinks=False).st_mode):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                pending.append((os.open(child, flags, dir_fd=directory), child, os.dup(directory)))
            else:
                os.unlink(child, dir_fd=directory)
        prefix = os.readlink(f"/proc/self/fd/{parent}")
        own = os.readlink(f"/proc/self/fd/{self._fd}")
        gone = os.path.relpath(os.path.join(prefix, last), own)
        for known in [name for name in self._directories if name == gone or name.startswith(f"{gone}/")]:
            del self._directories[known]

    def _make_directory(self, parent: int, last: str, name: str, member: tarfile.TarInfo) -> None:
        try:
            found = os.stat(last, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is None or not stat.S_ISDIR(found.st_mode):
            if found is not None:
                os.unlink(last, dir_fd=parent)
            os.mkdir(last, 0o700, dir_fd=parent)
        real = os.path.relpath(os.readlink(f"/proc/self/fd/{parent}"), os.readlink(f"/proc/self/fd/{self._fd}"))
        self._directories[os.path.normpath(os.path.join(real, last))] = member

    def _make_file(self, parent: int, last: str, member: tarfile.TarInfo, members: tarfile.TarFile) -> None:
        self._budget -= member.size
        if member.size > self._limits.max_file_bytes or self._budget < 0:
            raise self._refuse(member, "unpacks to more than the limits allow", errno.EFBIG)
        self._clear(parent, last)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(last, flags, 0o600, dir_fd=parent), "wb") as file:
            content = members.extractfile(member)
            left = member.size
            while content is not None and left > 0 and (chunk := content.read(min(_CHUNK, left))):
                file.write(chunk)
                left -= len(chunk)
            if left:
                raise self._refuse(member, "cut off in the middle of a file")
            file.flush()
            self._apply(file.fileno(), member)

    def _make_link(self, parent: int, last: str, member: tarfile.TarInfo) -> None:
        """A hard link to an earlier entry, found inside the root; its last component is not followed."""
        head, _, name = self._name(member, member.linkname).rpartition("/")
        try:
            source = native.openat2(self._fd, os.fsencode(head or "."), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            raise self._refuse(member, f"a link to {member.linkname[:200]!r}, which is not in the archive") from None
        try:
            found = os.stat(name, dir_fd=source, follow_symlinks=False) if name else None
            if found is None or stat.S_ISDIR(found.st_mode):
                raise self._refuse(member, "a hard link to a directory")
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(last, dir_fd=parent, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
                    return
            self._clear(parent, last)
            os.link(name, last, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise self._refuse(member, f"a link to {member.linkname[:200]!r}, which is not in the archive") from None
        finally:
            os.close(source)

    def _own(self, last: str, parent: int, member: tarfile.TarInfo) -> None:
        if self._privileged:
            os.chown(last, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(last, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

    def _apply(self, fd: int, member: tarfile.TarInfo) -> None:
        """Owner before mode, for a change of owner takes set-id bits away."""
        if self._privileged:
            os.chown(fd, member.uid, member.gid)
        for key, value in member.pax_headers.items():
            if key.startswith("SCHILY.xattr."):
                attribute = key.removeprefix("SCHILY.xattr.")
                if attribute.startswith("user.") or (self._privileged and attribute == "security.capability"):
                    with contextlib.suppress(OSError):  # a file system without them
                        os.setxattr(fd, attribute, value.encode("utf-8", "surrogateescape"))
        os.chmod(fd, member.mode & (0o7777 if self._privileged else 0o777))
        os.utime(fd, (member.mtime, member.mtime))
