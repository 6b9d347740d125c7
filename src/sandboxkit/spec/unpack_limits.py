"""How much an archive may unpack to before it is taken for a bomb."""

from __future__ import annotations

import attrs

from sandboxkit.spec.sizes import size_field, whole


@attrs.frozen(kw_only=True)
class UnpackLimits:
    """Bytes in all, entries, bytes of one file, unpacked bytes per archive byte, and depth of directories."""

    max_bytes: int = attrs.field(default="64G", converter=size_field("max_bytes"))
    max_entries: int = attrs.field(default=4_000_000, converter=lambda v: whole(v, "max_entries", 1, 2**40))
    max_file_bytes: int = attrs.field(default="32G", converter=size_field("max_file_bytes"))
    max_ratio: int = attrs.field(default=1000, converter=lambda v: whole(v, "max_ratio", 1, 2**40))
    max_depth: int = attrs.field(default=256, converter=lambda v: whole(v, "max_depth", 1, 2**20))
