"""Namespace: which namespaces a sandbox has of its own, and which it joins."""

from __future__ import annotations

import os
from typing import Any

import attrs

from sandboxkit.errors import SpecError
from sandboxkit.spec.paths import host_path
from sandboxkit.spec.sizes import whole

NAMES = frozenset({"user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"})
_DEFAULT = NAMES - {"time"}
_NEEDED = {
    "mnt": "the mnt namespace: without it there is no root to put the sandbox in",
    "pid": "the pid namespace: without it processes could not be found and ended for certain",
}


@attrs.frozen
class Target:
    """A namespace to join: exactly one of a path, a pid, or an open fd."""

    path: str | None = None
    pid: int | None = None
    fd: int | None = None

    def open(self, name: str) -> int:
        """An fd of the namespace of that name. Raises OSError."""
        if self.fd is not None:
            return os.dup(self.fd)
        path = self.path if self.path is not None else f"/proc/{self.pid}/ns/{name}"
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __str__(self) -> str:
        return self.path or (f"pid {self.pid}" if self.pid is not None else f"fd {self.fd}")


def target_of(target: Any = None, *, path: Any = None, pid: int | None = None, fd: int | None = None) -> Target:
    """From what a caller gives: a number is a pid unless it is said to be an fd."""
    if isinstance(target, Target):
        return target
    if isinstance(target, int) and not isinstance(target, bool):
        pid = target if pid is None else pid
    elif target is not None:
        path = target if path is None else path
    if [path, pid, fd].count(None) != 2:
        raise SpecError("target", target, "exactly one of a path, a pid or an fd")
    if pid is not None:
        return Target(pid=whole(pid, "pid", 1, 2**31 - 1))
    if fd is not None:
        return Target(fd=whole(fd, "fd", 0, 2**31 - 1))
    return Target(path=host_path(path, "path"))


def _check_names(names: Any) -> frozenset[str]:
    for name in names:
        if name not in NAMES:
            raise SpecError("namespace", name, f"one of {', '.join(sorted(NAMES))}")
    return frozenset(names)


@attrs.frozen
class Namespace:
    """A set of namespaces. What is neither new nor joined is shared with the caller.

    >>> sorted(Namespace.without("net").new)
    ['cgroup', 'ipc', 'mnt', 'pid', 'user', 'uts']
    """

    new: frozenset[str] = attrs.field(default=_DEFAULT, converter=_check_names)
    joins: tuple[tuple[str, Target], ...] = attrs.field(default=(), kw_only=True)
    time_offsets: tuple[float, float] | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        joined = {name for name, _ in self.joins}
        if "mnt" not in self.new:
            raise SpecError("namespace", sorted(self.new), _NEEDED["mnt"])
        if "pid" not in self.new | joined:
            raise SpecError("namespace", sorted(self.new), _NEEDED["pid"])
        if ("time" in self.new) != (self.time_offsets is not None):
            object.__setattr__(self, "time_offsets", (0.0, 0.0) if "time" in self.new else self.time_offsets)
            object.__setattr__(self, "new", self.new | {"time"})

    @classmethod
    def all(cls, *, monotonic: float = 0.0, boottime: float = 0.0) -> Namespace:
        """All of its own; a time namespace only if an offset of a clock (in seconds) is given."""
        return cls().with_time(monotonic=monotonic, boottime=boottime) if monotonic or boottime else cls()

    @classmethod
    def only(cls, *names: str) -> Namespace:
        """These; `mnt` and `pid` cannot be left out."""
        return cls(frozenset(names))

    @classmethod
    def without(cls, *names: str) -> Namespace:
        """All but these; `mnt` and `pid` cannot be left out."""
        return cls(_DEFAULT - _check_names(names))

    @classmethod
    def join(
        cls, name: str, target: Any = None, *, path: Any = None, pid: int | None = None, fd: int | None = None
    ) -> Namespace:
        """All, with one joined: that of a path like `/run/netns/x`, of a process, or of an open fd."""
        return cls().joining(name, target, path=path, pid=pid, fd=fd)

    def joining(
        self, name: str, target: Any = None, *, path: Any = None, pid: int | None = None, fd: int | None = None
    ) -> Namespace:
        """This set, with one more joined instead of made."""
        _check_names([name])
        if name == "mnt":
            raise SpecError("namespace", name, _NEEDED["mnt"])
        if name == "user":
            raise SpecError("namespace", name, "another one: the id map of a sandbox is always its own")
        joins = (
            *(entry for entry in self.joins if entry[0] != name),
            (name, target_of(target, path=path, pid=pid, fd=fd)),
        )
        return Namespace(
            self.new - {name},
            joins=tuple(sorted(joins, key=lambda entry: entry[0])),
            time_offsets=None if name == "time" else self.time_offsets,
        )

    def with_time(self, *, monotonic: float = 0.0, boottime: float = 0.0) -> Namespace:
        """This set with a time namespace whose clocks differ from the host's by so many seconds."""
        for argument, value in (("monotonic", monotonic), ("boottime", boottime)):
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 2**33:
                raise SpecError(argument, value, "a number of seconds")
        return Namespace(self.new | {"time"}, joins=self.joins, time_offsets=(float(monotonic), float(boottime)))
