"""What is put into a sandbox's file system, in the order given."""

from __future__ import annotations

from typing import Any

import attrs

from sandboxkit.errors import SpecError
from sandboxkit.spec.paths import host_path, target_path, text_path
from sandboxkit.spec.sizes import size_field, whole


def _target(value: Any) -> str:
    return target_path(value, "target")


def _mode(value: Any) -> int:
    return whole(value, "mode", 0, 0o7777)


def _content(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise SpecError("content", value, "text or bytes")


def _link(value: Any) -> str:
    return text_path(value, "to")


@attrs.frozen
class Bind:
    """A file or directory of the host, with everything mounted below it; read-only unless said otherwise."""

    source: str = attrs.field(converter=lambda value: host_path(value, "source"))
    target: str = attrs.field(converter=_target)
    readonly: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    recursive: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))


@attrs.frozen
class Tmpfs:
    """An empty file system in memory; `size` in bytes."""

    target: str = attrs.field(converter=_target)
    size: int = attrs.field(default="64M", converter=size_field("size"), kw_only=True)
    inodes: int = attrs.field(default=16384, converter=lambda v: whole(v, "inodes", 2, 2**40), kw_only=True)
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
