"""User: who a program is inside."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from sandboxkit.spec.sizes import whole

_HIGHEST = 65533  # 65534 is nobody, 65535 the supervisor


def _uid(value: int) -> int:
    return whole(value, "uid", 0, _HIGHEST)


def _gid(value: int) -> int:
    return whole(value, "gid", 0, _HIGHEST)


def _groups(value: Iterable[int]) -> tuple[int, ...]:
    return tuple(whole(group, "groups", 0, _HIGHEST) for group in value)


@attrs.frozen
class User:
    """Ids as seen inside. Uid 0 inside is still an unprivileged id outside, and has no capability."""

    uid: int = attrs.field(default=1000, converter=_uid)
    gid: int = attrs.field(default=1000, converter=_gid)
    groups: tuple[int, ...] = attrs.field(default=(), converter=_groups)
