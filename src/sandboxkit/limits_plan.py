"""From limits to cgroup files: which directories, what goes into them, and what stands in where there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from sandboxkit.errors import UnsupportedError
from sandboxkit.result import Control
from sandboxkit.spec import CgroupLimit, SandboxSpec

# The keeper of a run and init are counted by the kernel along with the program's own processes.
SUPERVISORS = 2
RLIMIT_DATA, RLIMIT_NPROC = 2, 6
CPU_PERIOD_US = 100_000


@attrs.frozen(kw_only=True)
class LimitHost:
    """Where cgroups can be made: controller -> (version, parent directory), and what the kernel offers there."""

    controllers: Mapping[str, tuple[int, str]] = attrs.field(factory=dict)
    reasons: Mapping[str, str] = attrs.field(factory=dict)
    swap_accounting: bool = False
    cpuset_mems: str = ""
    nproc_counts: bool = False  # RLIMIT_NPROC counts the sandbox's processes alone: rootless, own user namespace


@attrs.frozen(kw_only=True)
class LimitsPlan:
    """The cgroups to make, the files to write in them in this order, and the rlimits that stand in for the rest."""

    cgroups: tuple[tuple[str, int], ...] = ()  # directory, cgroup version
    settings: tuple[tuple[int, str, str], ...] = ()  # index into cgroups, file, value
    rlimits: tuple[tuple[int, int, int], ...] = ()
    controls: tuple[tuple[str, Control], ...] = ()

    def directory(self, controls: str) -> str | None:
        """The directory that enforces a control, if a cgroup does."""
        for name, control in self.controls:
            if name == controls and control.by.startswith("cgroup"):
                return control.detail
        return None


def _memory(limits: CgroupLimit, host: LimitHost, version: int) -> list[tuple[str, str]]:
    assert limits.memory is not None
    if version == 2:
        files = [("memory.max", str(limits.memory)), ("memory.oom.group", "0")]
        if host.swap_accounting and limits.swap is not None:
            files.append(("memory.swap.max", str(limits.swap)))
        return files
    files = [("memory.limit_in_bytes", str(limits.memory))]
    if host.swap_accounting and limits.swap is not None:  # v1 counts memory and swap together, set after memory
        files.append(("memory.memsw.limit_in_bytes", str(limits.memory + limits.swap)))
    return files


def _pids(limits: CgroupLimit, host: LimitHost, version: int) -> list[tuple[str, str]]:
    assert limits.pids is not None
    return [("pids.max", str(limits.pids + SUPERVISORS))]


def _cpu(limits: CgroupLimit, host: LimitHost, version: int) -> list[tuple[str, str]]:
    assert limits.cpu is not None
    quota = max(1000, round(limits.cpu * CPU_PERIOD_US))  # the kernel refuses less than 1 ms
    if version == 2:
        return [("cpu.max", f"{quota} {CPU_PERIOD_US}")]
    return [("cpu.cfs_period_us", str(CPU_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]


def _cpu_weight(limits: CgroupLimit, host: LimitHost, version: int) -> list[tuple[str, str]]:
    assert limits.cpu_weight is not None
    if version == 2:
        return [("cpu.weight", str(limits.cpu_weight))]
    return [
        ("cpu.shares", str(max(2, limits.cpu_weight * 1024 // 100)))
    ]  # 100 is the default of one, 1024 of the other


def _cpuset(limits: CgroupLimit, host: LimitHost, version: int) -> list[tuple[str, str]]:
    files = [("cpuset.cpus", str(limits.cpuset))]
    if version == 1:  # a v1 cpuset without memory nodes takes no task
        files.append(("cpuset.mems", host.cpuset_mems))
    return files


_Files = Callable[[CgroupLimit, LimitHost, int], list[tuple[str, str]]]
# control -> the controller that gives it, and the files that say it
_CGROUP_CONTROLS: dict[str, tuple[str, _Files]] = {
    "memory": ("memory", _memory),
    "pids": ("pids", _pids),
    "cpu": ("cpu", _cpu),
    "cpu_weight": ("cpu", _cpu_weight),
    "cpuset": ("cpuset", _cpuset),
}


def _stand_in(name: str, limits: CgroupLimit, host: LimitHost) -> tuple[tuple[int, int, int], str, bool] | None:
    """(rlimit, what it does, as good as the real thing) for a control no cgroup can give, or None."""
    if name == "pids" and limits.pids is not None and host.nproc_counts:
        return (RLIMIT_NPROC, limits.pids, limits.pids), "RLIMIT_NPROC, counted in the sandbox's user namespace", True
    if name == "memory" and limits.memory is not None:
        return (RLIMIT_DATA, limits.memory, limits.memory), "RLIMIT_DATA, for each process by itself", False
    return None


def plan_limits(spec: SandboxSpec, host: LimitHost, name: str) -> LimitsPlan:
    """Raises `UnsupportedError` for a limit that was asked for, cannot be had, and is not in `allow_degraded`.

    `name` becomes the last component of every cgroup made.
    """
    limits, default = spec.limits, CgroupLimit.default()
    cgroups: dict[str, int] = {}
    versions: list[int] = []
    settings: list[tuple[int, str, str]] = []
    rlimits: list[tuple[int, int, int]] = []
    controls: list[tuple[str, Control]] = []
    for control, (controller, files) in _CGROUP_CONTROLS.items():
        value = getattr(limits, control)
        if value is None:
            continue
        asked = value != getattr(default, control)
        if controller in host.controllers:
            version, parent = host.controllers[controller]
            directory = f"{parent.rstrip('/')}/{name}"
            if directory not in cgroups:
                cgroups[directory] = len(versions)
                versions.append(version)
            settings += [(cgroups[directory], file, text) for file, text in files(limits, host, version)]
            controls.append((control, Control(by=f"cgroup v{version} {controller}", detail=directory, asked=asked)))
            continue
        stand_in = _stand_in(control, limits, host)
        allowed = control in spec.allow_degraded or not asked or (stand_in is not None and stand_in[2])
        if not allowed:
            reason = host.reasons.get(controller, "no cgroup that this process may create children in")
            raise UnsupportedError(
                f"the {control} limit",
                tried=f"cgroup controller {controller}: {reason}",
                fix=f"delegate a cgroup to this user (`python -m sandboxkit doctor` says how), "
                f"or accept the stand-in with allow_degraded={{{control!r}}}",
            )
        if stand_in is None:
            controls.append((control, Control(by="", detail="not enforced: no cgroup", asked=asked)))
        else:
            rlimits.append(stand_in[0])
            controls.append((control, Control(by="rlimit", detail=stand_in[1], asked=asked)))
    if limits.io:
        raise UnsupportedError("io limits", tried="this version has no io limits yet", fix="leave io= out")
    return LimitsPlan(
        cgroups=tuple((directory, versions[index]) for directory, index in cgroups.items()),
        settings=tuple(settings),
        rlimits=tuple(rlimits),
        controls=tuple(controls),
    )
