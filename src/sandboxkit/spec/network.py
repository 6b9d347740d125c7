"""Network: what a sandbox can reach."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from sandboxkit.spec.namespaces import Target, target_of


@attrs.frozen
class Network:
    """Made by one of the named constructors."""

    kind: Literal["none", "host", "join"] = "none"
    target: Target | None = None

    @classmethod
    def none(cls) -> Network:
        """A network of its own with nothing but a working loopback."""
        return cls()

    @classmethod
    def host(cls) -> Network:
        """The host's network, abstract sockets included."""
        return cls("host")

    @classmethod
    def join(cls, target: Any = None, *, path: Any = None, pid: int | None = None, fd: int | None = None) -> Network:
        """Somebody else's network namespace: a path, a pid, or an open fd."""
        return cls("join", target_of(target, path=path, pid=pid, fd=fd))
