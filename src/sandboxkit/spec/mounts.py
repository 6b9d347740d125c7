"""What is put into a sandbox's file system, in the order given."""

from __future__ import annotations

import attrs

from sandboxkit.errors import SpecError
from sandboxkit.spec.paths import Path, host_path, target_path, text_path
from sandboxkit.spec.sizes import parse_size, whole


def _source(value: Path) -> str:
    return host_path(value, "source")


def _target(value: Path) -> str:
    return target_path(value, "target")


def _size(value: int | str) -> int:
    return parse_size(value, "size")


def _inodes(value: int) -> int:
    return whole(value, "inodes", 2, 2**40)


def _mode(value: int) -> int:
    return whole(value, "mode", 0, 0o7777)


def _content(value: bytes | str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise SpecError("content", value, "text or bytes")


def _link(value: Path) -> str:
    return text_path(value, "to")


@attrs.frozen
class Bind:
    """A file or directory of the host, with everything mounted below it; read-only unless said otherwise."""

    source: str = attrs.field(converter=_source)
    target: str = attrs.field(converter=_target)
    readonly: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    recursive: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))


@attrs.frozen
class Tmpfs:
    """An empty file system in memory; `size` in bytes."""

    target: str = attrs.field(converter=_target)
    size: int = attrs.field(default=64 << 20, converter=_size, kw_only=True)
    inodes: int = attrs.field(default=16384, converter=_inodes, kw_only=True)
    mode: int = attrs.field(default=0o1777, converter=_mode, kw_only=True)


@attrs.frozen
class File:
    """A file with this content, owned by root inside."""

    target: str = attrs.field(converter=_target)
    content: bytes = attrs.field(converter=_content)
    mode: int = attrs.field(default=0o644, converter=_mode, kw_only=True)


@attrs.frozen
class Symlink:
    """A symbolic link; `to` is stored as it is and resolves inside."""

    target: str = attrs.field(converter=_target)
    to: str = attrs.field(converter=_link)


Mount = Bind | Tmpfs | File | Symlink
