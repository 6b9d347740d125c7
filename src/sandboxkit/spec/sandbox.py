"""SandboxSpec: everything a sandbox is, as one frozen value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from sandboxkit.errors import SpecError
from sandboxkit.spec.layers import OverlayLayer
from sandboxkit.spec.limits import CgroupLimit, Rlimits
from sandboxkit.spec.mounts import Bind, File, Mount, Symlink, Tmpfs
from sandboxkit.spec.namespaces import Namespace
from sandboxkit.spec.network import Network
from sandboxkit.spec.paths import Path, inside_path
from sandboxkit.spec.rootfs import RootFS
from sandboxkit.spec.security import Security
from sandboxkit.spec.user import User

DEGRADABLE = frozenset({"memory", "swap", "cpu", "cpu_weight", "cpuset", "pids", "io"})


def _one(argument: str, kind: type) -> Any:
    def check(_: Any, __: Any, value: Any) -> None:
        if not isinstance(value, kind):
            raise SpecError(argument, value, f"a {kind.__name__}")

    return check


def _many(argument: str, values: Any, *kinds: type) -> tuple[Any, ...]:
    names = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(values, (str, bytes, *kinds)):
        raise SpecError(argument, values, f"a list of {names}")
    try:
        items = tuple(values)
    except TypeError:
        raise SpecError(argument, values, f"a list of {names}") from None
    for item in items:
        if not isinstance(item, kinds):
            raise SpecError(argument, item, names)
    return items


def _layers(value: Iterable[OverlayLayer]) -> tuple[OverlayLayer, ...]:
    return _many("layers", value, OverlayLayer)


def _mounts(value: Iterable[Mount]) -> tuple[Mount, ...]:
    return _many("mounts", value, Bind, Tmpfs, File, Symlink)


def _cwd(value: Path | None) -> str | None:
    return None if value is None else inside_path(value, "cwd")


def check_environment(value: Any, argument: str = "env") -> dict[str, str | None] | None:
    """Names to values; a value of None takes the name out."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise SpecError(argument, value, "a mapping of names to values")
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise SpecError(argument, name, "a name that is not empty and has no '=' and no NUL")
        if text is not None and (not isinstance(text, str) or "\0" in text):
            raise SpecError(argument, text, f"text without NUL, or None, for {name}")
    return dict(value)


def _freeze_environment(value: Any) -> tuple[tuple[str, str | None], ...]:
    if isinstance(value, tuple):
        value = dict(value)
    return tuple(sorted((check_environment(value) or {}).items()))


def _hostname(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?", value):
        raise SpecError("hostname", value, "a host name of at most 64 letters, digits, dots and hyphens")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise SpecError("readonly", value, "True or False")
    return value


def _degradable(value: Any) -> frozenset[str]:
    names = frozenset([value] if isinstance(value, str) else value)
    for name in names:
        if name not in DEGRADABLE:
            raise SpecError("allow_degraded", name, f"one of {', '.join(sorted(DEGRADABLE))}")
    return names


@attrs.frozen
class SandboxSpec:
    """The arguments of `Sandbox`, checked and made comparable, hashable and picklable."""

    rootfs: RootFS = attrs.field(factory=RootFS.host, validator=_one("rootfs", RootFS))
    layers: tuple[OverlayLayer, ...] = attrs.field(default=(), kw_only=True, converter=_layers)
    mounts: tuple[Mount, ...] = attrs.field(default=(), kw_only=True, converter=_mounts)
    namespaces: Namespace = attrs.field(factory=Namespace.all, kw_only=True, validator=_one("namespaces", Namespace))
    limits: CgroupLimit = attrs.field(factory=CgroupLimit.default, kw_only=True, validator=_one("limits", CgroupLimit))
    network: Network = attrs.field(factory=Network.none, kw_only=True, validator=_one("network", Network))
    security: Security = attrs.field(factory=Security.default, kw_only=True, validator=_one("security", Security))
    rlimits: Rlimits = attrs.field(factory=Rlimits, kw_only=True, validator=_one("rlimits", Rlimits))
    user: User = attrs.field(factory=User, kw_only=True, validator=_one("user", User))
    hostname: str = attrs.field(default="sandbox", kw_only=True, converter=_hostname)
    readonly: bool = attrs.field(default=False, kw_only=True, converter=_flag)
    env: tuple[tuple[str, str | None], ...] = attrs.field(default=(), kw_only=True, converter=_freeze_environment)
    cwd: str | None = attrs.field(default=None, kw_only=True, converter=_cwd)
    allow_degraded: frozenset[str] = attrs.field(default=frozenset(), kw_only=True, converter=_degradable)

    def __attrs_post_init__(self) -> None:
        for layer in self.layers[:-1]:
            if layer.writable:
                raise SpecError("layers", self.layers, "at most one writable layer, as the last one")
        if self.layers and self.rootfs.kind in ("host", "empty"):
            raise SpecError(
                "layers",
                self.layers,
                f"none: the {self.rootfs.kind} root is put together from mounts; layers go on a directory or a tar",
            )

    def replace(self, **changes: Any) -> SandboxSpec:
        """This with changes, checked anew."""
        unknown = set(changes) - {field.name for field in attrs.fields(type(self))}
        if unknown:
            raise SpecError("replace", sorted(unknown), "arguments of Sandbox")
        return attrs.evolve(self, **changes)
