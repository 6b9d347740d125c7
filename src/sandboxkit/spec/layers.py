"""OverlayLayer: one layer of the stack that makes a root."""

from __future__ import annotations

import os
from typing import Any

import attrs

from sandboxkit.spec.paths import Path, host_path
from sandboxkit.spec.sizes import parse_size, whole

DEFAULT_SIZE, DEFAULT_INODES = "256M", 16384


def _path(value: Path) -> str:
    return host_path(value, "path")


@attrs.frozen
class OverlayLayer:
    """`OverlayLayer(path)` is a directory put, read-only, on top of the layers before it; `tmpfs()` is a writable top.

    >>> OverlayLayer.tmpfs(size="1M").size
    1048576
    """

    path: str = attrs.field(converter=_path)
    writable: bool = attrs.field(default=False, init=False)
    size: int = attrs.field(default=0, init=False)
    inodes: int = attrs.field(default=0, init=False)

    @classmethod
    def tmpfs(cls, size: int | str = DEFAULT_SIZE, inodes: int = DEFAULT_INODES) -> OverlayLayer:
        """A writable top in memory, gone with the sandbox. Only the last layer can be one."""
        layer = cls("/")
        object.__setattr__(layer, "path", "")
        object.__setattr__(layer, "writable", True)
        object.__setattr__(layer, "size", parse_size(size, "size"))
        object.__setattr__(layer, "inodes", whole(inodes, "inodes", 16, 2**40))
        return layer

    def __reduce__(self) -> tuple[Any, ...]:
        if self.writable:
            return OverlayLayer.tmpfs, (self.size, self.inodes)
        return OverlayLayer, (self.path,)

    def __fspath__(self) -> str:
        return os.fspath(self.path)
