"""Where unpacked roots and committed layers are kept, and how something gets in there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator

from sandboxkit.errors import ImageError


def _private_directory(path: str) -> str:
    """Made if missing, with mode 0700. One that is somebody else's, or a link, is refused."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ImageError("this must be a directory of our own that nobody else may write to", path=path)
    return path


def store_directory(kind: str) -> str:
    """`$XDG_CACHE_HOME/sandboxkit/KIND`, or below `~/.cache`."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(cache):
        raise ImageError("XDG_CACHE_HOME and HOME must be absolute paths", path=cache)
    return _private_directory(os.path.join(_private_directory(os.path.join(cache, "sandboxkit")), kind))


@contextlib.contextmanager
def locked(directory: str, name: str) -> Iterator[None]:
    """One process at a time for this name. The lock file stays: removing it would let two hold it at once."""
    fd = os.open(os.path.join(directory, f".{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def remove_tree(path: str) -> None:
    """Remove a tree of our own, even where its directories are closed to us."""

    def open_up(function: object, name: str, _: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, 0o700)
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)

    shutil.rmtree(path, onerror=open_up)


@contextlib.contextmanager
def building(directory: str, final: str) -> Iterator[str]:
    """A directory to fill, which takes its final name when the block ends well and is removed when it does not.

    A lock on it tells the living from what a killed process left, which the next one removes.
    """
    _remove_abandoned(directory)
    scratch = os.path.join(directory, f".tmp-{secrets.token_hex(8)}")
    os.mkdir(scratch, 0o700)
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.mkdir(os.path.join(scratch, "root"), 0o755)
        yield os.path.join(scratch, "root")
        os.rename(os.path.join(scratch, "root"), os.path.join(directory, final))
    finally:
        os.close(fd)
        remove_tree(scratch)


def _remove_abandoned(directory: str) -> None:
    for name in os.listdir(directory):
        if not name.startswith(".tmp-"):
            continue
        path = os.path.join(directory, name)
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path)
            finally:
                os.close(fd)
