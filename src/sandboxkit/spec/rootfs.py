"""RootFS: what a sandbox's `/` is made of."""

from __future__ import annotations

import os
from typing import Any, Literal

import attrs

from sandboxkit.spec.paths import host_path


@attrs.frozen
class RootFS:
    """A root: made by one of the named constructors. Nothing is looked up before the sandbox is opened.

    >>> RootFS.directory("/srv/rootfs")
    RootFS(kind='directory', path='/srv/rootfs')
    """

    kind: Literal["host", "empty", "directory", "tar"] = "host"
    path: str = ""

    @classmethod
    def host(cls) -> RootFS:
        """The host's own `/usr` and the running interpreter, read-only; everything else made up."""
        return cls("host")

    @classmethod
    def empty(cls) -> RootFS:
        """Nothing but `/proc`, `/dev`, `/tmp` and `/box`; programs come in through mounts."""
        return cls("empty")

    @classmethod
    def directory(cls, path: str | os.PathLike[str] | Any) -> RootFS:
        """An unpacked root. It is never written to: changes go to an upper layer."""
        return cls("directory", host_path(path, "path"))

    @classmethod
    def tar(cls, path: str | os.PathLike[str] | Any) -> RootFS:
        """A flat archive as `docker export` writes it, unpacked once and shared read-only by all who use it."""
        return cls("tar", host_path(path, "path"))
