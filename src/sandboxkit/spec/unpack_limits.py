"""How much an archive may unpack to before it is taken for a bomb."""

from __future__ import annotations

import attrs

from sandboxkit.spec.sizes import parse_size, whole


def _bytes(value: int | str) -> int:
    return parse_size(value, "a limit in bytes")


def _count(value: int) -> int:
    return whole(value, "a limit", 1, 2**40)


@attrs.frozen(kw_only=True)
class UnpackLimits:
    """Bytes in all, entries, bytes of one file, unpacked bytes per archive byte, and depth of directories."""

    max_bytes: int = attrs.field(default=64 << 30, converter=_bytes)
    max_entries: int = attrs.field(default=4_000_000, converter=_count)
    max_file_bytes: int = attrs.field(default=32 << 30, converter=_bytes)
    max_ratio: int = attrs.field(default=1000, converter=_count)
    max_depth: int = attrs.field(default=256, converter=_count)
