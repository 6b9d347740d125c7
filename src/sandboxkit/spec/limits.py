"""CgroupLimit and Rlimits: how much of the host a sandbox, and each of its processes, may use."""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from sandboxkit.errors import SpecError
from sandboxkit.spec.paths import Path, host_path
from sandboxkit.spec.sizes import parse_size, whole


def _cores(value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    raise SpecError("cpu", value, "a number of cores above 0, like 1.5")


def _cpuset(value: str | None) -> str | None:
    """A list of CPUs in its shortest form, so that "0,1" and "0-1" are the same."""
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", value):
        raise SpecError("cpuset", value, 'a list of CPUs like "0-1,4"')
    cpus: set[int] = set()
    for part in value.split(","):
        first, _, last = part.partition("-")
        if int(last or first) < int(first) or int(last or first) > 8191:
            raise SpecError("cpuset", value, "ranges that go upwards, CPUs up to 8191")
        cpus.update(range(int(first), int(last or first) + 1))
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _memory(value: int | str | None) -> int | None:
    if value is None:
        return None
    size = parse_size(value, "memory")
    if size == 0:
        raise SpecError("memory", value, "more than nothing")
    return size


def _swap(value: int | str | None) -> int | None:
    return None if value is None else parse_size(value, "swap")


def _weight(value: int | None) -> int | None:
    return None if value is None else whole(value, "cpu_weight", 1, 10000)


def _pids(value: int | None) -> int | None:
    return None if value is None else whole(value, "pids", 1, 4194304)


def _path(value: Path) -> str:
    return host_path(value, "path")


def _bytes_per_second(value: int | str | None) -> int | None:
    return None if value is None else parse_size(value, "bytes per second")


def _operations(value: int | None) -> int | None:
    return None if value is None else whole(value, "operations per second", 1, 2**40)


def _io(value: Iterable[IoLimit]) -> tuple[IoLimit, ...]:
    limits = tuple(value)
    for limit in limits:
        if not isinstance(limit, IoLimit):
            raise SpecError("io", limit, "a list of IoLimit")
    return limits


def _half_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@attrs.frozen(kw_only=True)
class IoLimit:
    """Bytes and operations per second on the device that holds a path."""

    path: str = attrs.field(converter=_path)
    rbps: int | None = attrs.field(default=None, converter=_bytes_per_second)
    wbps: int | None = attrs.field(default=None, converter=_bytes_per_second)
    riops: int | None = attrs.field(default=None, converter=_operations)
    wiops: int | None = attrs.field(default=None, converter=_operations)


@attrs.frozen(kw_only=True)
class CgroupLimit:
    """Limits of a whole sandbox; None leaves one out. Sizes in bytes or like "256M", cpu in cores.

    >>> CgroupLimit(memory="256M") == CgroupLimit(memory=268435456)
    True
    """

    memory: int | None = attrs.field(default=None, converter=_memory)
    swap: int | None = attrs.field(default=0, converter=_swap)
    cpu: float | None = attrs.field(default=None, converter=_cores)
    cpu_weight: int | None = attrs.field(default=None, converter=_weight)
    cpuset: str | None = attrs.field(default=None, converter=_cpuset)
    pids: int | None = attrs.field(default=None, converter=_pids)
    io: tuple[IoLimit, ...] = attrs.field(default=(), converter=_io)

    @classmethod
    def default(cls) -> CgroupLimit:
        """1 GiB of memory (half of the host's if that is less), no swap, 256 processes."""
        return cls(memory=min(1 << 30, _half_of_memory()), pids=256)

    @classmethod
    def grader(cls) -> CgroupLimit:
        """512 MiB, no swap, 64 processes, one core."""
        return cls(memory="512M", pids=64, cpu=1)

    @classmethod
    def agent(cls) -> CgroupLimit:
        """4 GiB, no swap, 512 processes, two cores."""
        return cls(memory="4G", pids=512, cpu=2)

    @classmethod
    def unlimited(cls) -> CgroupLimit:
        """Nothing is limited."""
        return cls(swap=None)


# Not all of them have a name in the standard library: numbers from asm-generic/resource.h.
_NUMBERS = {
    "cpu": resource.RLIMIT_CPU,
    "fsize": resource.RLIMIT_FSIZE,
    "data": resource.RLIMIT_DATA,
    "stack": resource.RLIMIT_STACK,
    "core": resource.RLIMIT_CORE,
    "rss": resource.RLIMIT_RSS,
    "nproc": resource.RLIMIT_NPROC,
    "nofile": resource.RLIMIT_NOFILE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "as_": resource.RLIMIT_AS,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}
_INFINITY = 2**64 - 1


def _limit(argument: str) -> Any:
    def one(value: Any) -> int:
        return _INFINITY if value == "unlimited" else parse_size(value, argument)

    def convert(value: Any) -> tuple[int, int] | None:
        if value is None:
            return None
        soft, hard = (
            (one(value[0]), one(value[1])) if isinstance(value, tuple) and len(value) == 2 else (one(value),) * 2
        )
        if soft > hard:
            raise SpecError(argument, value, "a soft limit that is not above the hard one")
        return soft, hard

    return convert


def _field(argument: str, default: Any = None) -> Any:
    return attrs.field(default=default, converter=_limit(argument))


@attrs.frozen(kw_only=True)
class Rlimits:
    """Limits of each process by itself: setrlimit(2). Sizes, "unlimited", (soft, hard), or None: the caller's."""

    cpu: Any = _field("cpu")
    fsize: Any = _field("fsize")
    data: Any = _field("data")
    stack: Any = _field("stack", "8M")
    core: Any = _field("core", 0)
    rss: Any = _field("rss")
    nproc: Any = _field("nproc")
    nofile: Any = _field("nofile", 4096)
    memlock: Any = _field("memlock", "64K")
    as_: Any = _field("as_")
    locks: Any = _field("locks")
    sigpending: Any = _field("sigpending", 1024)
    msgqueue: Any = _field("msgqueue", 0)
    nice: Any = _field("nice", 0)
    rtprio: Any = _field("rtprio", 0)
    rttime: Any = _field("rttime")

    def items(self) -> Iterator[tuple[int, int, int]]:
        """(resource number, soft, hard) of each that is set."""
        for name, number in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None:
                yield number, value[0], value[1]
