"""Where this process may make cgroups: read from what the kernel says of its mounts and its own cgroups."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Literal

import attrs

CONTROLLERS = ("memory", "pids", "cpu", "cpuset", "io", "hugetlb", "freezer")
_V1_NAMES = {"io": "blkio"}


@attrs.frozen(kw_only=True)
class CgroupLayout:
    """controller -> (cgroup version, directory to make children in); for each that is missing, the reason."""

    mode: Literal["v2", "v1", "hybrid", "none"]
    controllers: Mapping[str, tuple[int, str]]
    reasons: Mapping[str, str]


@attrs.frozen
class _Mount:
    point: str
    root: str
    version: int
    options: frozenset[str]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _mounts(mountinfo: str) -> list[_Mount]:
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 6 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        found.append(_Mount(_unescape(fields[4]), _unescape(fields[3]), version, frozenset(kind[2].split(","))))
    return found


def _own(cgroups: str) -> dict[str, str]:
    """controller (or "" for v2) -> path of this process's cgroup."""
    paths: dict[str, str] = {}
    for line in cgroups.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            paths[name] = path
    return paths


def _directory(mount: _Mount, path: str) -> str | None:
    """A cgroup's directory below a mount that may show a part of the hierarchy only; None if it is out of its sight."""
    root = "" if mount.root == "/" else mount.root
    if not f"{path.rstrip('/')}/".startswith(f"{root}/") or "/.." in path:
        return None
    return (mount.point + path[len(root) :]).rstrip("/")


def read_layout(
    mountinfo: str, cgroups: str, *, read: Callable[[str], str | None], may_create: Callable[[str], bool]
) -> CgroupLayout:
    """Pure but for its two questions: a small file's text (None: not there), and whether a directory takes children."""
    mounts, own = _mounts(mountinfo), _own(cgroups)
    controllers: dict[str, tuple[int, str]] = {}
    reasons: dict[str, str] = {}
    for controller in CONTROLLERS:
        name = _V1_NAMES.get(controller, controller)
        v1 = next((mount for mount in mounts if mount.version == 1 and name in mount.options), None)
        v2 = next((mount for mount in mounts if mount.version == 2), None)
        found: str | tuple[int, str]
        if v1 is not None:
            found = _v1(v1, own.get(name), may_create)
        elif v2 is not None:
            found = _v2(v2, own.get(""), controller, read, may_create)
        else:
            found = "no cgroup file system is mounted"
        if isinstance(found, str):
            reasons[controller] = found
        else:
            controllers[controller] = found
    versions = {mount.version for mount in mounts}
    mode: Literal["v2", "v1", "hybrid", "none"] = (
        "hybrid" if versions == {1, 2} else "v1" if versions == {1} else "v2" if versions == {2} else "none"
    )
    return CgroupLayout(mode=mode, controllers=controllers, reasons=reasons)


def _v1(mount: _Mount, path: str | None, may_create: Callable[[str], bool]) -> str | tuple[int, str]:
    directory = None if path is None else _directory(mount, path)
    if directory is None:
        return f"this process's cgroup is not visible below {mount.point}"
    return (1, directory) if may_create(directory) else f"{directory} is not writable for this user"


def _v2(
    mount: _Mount,
    path: str | None,
    controller: str,
    read: Callable[[str], str | None],
    may_create: Callable[[str], bool],
) -> str | tuple[int, str]:
    directory = None if path is None else _directory(mount, path)
    if directory is None:
        return f"this process's cgroup is not visible below {mount.point}"
    available = (read(f"{directory}/cgroup.controllers") or "").split()
    if controller not in available:
        return f"the controller is not available in {directory}"
    if controller not in (read(f"{directory}/cgroup.subtree_control") or "").split():
        return (
            f"the controller is not enabled for children of {directory}; cgroup v2 does not allow that where processes "
            "live (cgroups(7), no internal processes)"
        )
    return (2, directory) if may_create(directory) else f"{directory} is not writable for this user"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return None


def current_layout() -> CgroupLayout:
    """This process's layout now."""
    return read_layout(
        _read("/proc/self/mountinfo") or "",
        _read("/proc/self/cgroup") or "",
        read=_read,
        may_create=lambda directory: os.access(directory, os.W_OK | os.X_OK),
    )
