"""What a measurement was taken on: printed with every table, because a number without its machine says nothing.

Names of machines and users are left out on purpose: a record is meant to be published.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path


def record() -> dict[str, str]:
    """The environment, one short text per fact; facts this host does not tell are missing, not guessed."""
    facts = {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cpus": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}: {_cpu_model()}",
        "machine": _machine_kind(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "user": "root" if os.geteuid() == 0 else "unprivileged",
        "mounts": str(len(Path("/proc/self/mountinfo").read_text().splitlines())),
        "cgroups": cgroup_mode(),
        "caller": f"{_status('Threads')} threads, RSS {_status('VmRSS')}",
    }
    for name, path in (
        ("transparent huge pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
        ("governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        ("security modules", "/sys/kernel/security/lsm"),
        ("bpf jit", "/proc/sys/net/core/bpf_jit_enable"),
    ):
        text = _read(path)
        if text:
            facts[name] = text
    for program in ("bwrap", "unshare"):
        if shutil.which(program):
            shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
            facts[program] = shown.stdout.strip()
    return facts


def show(facts: dict[str, str]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in facts.items())


def cgroup_mode() -> str:
    """ "v2", "v1", "hybrid" or "none", with the hierarchies' mount options that decide latency."""
    kinds: set[str] = set()
    favour = False
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        kind, _, options = line.partition(" - ")[2].split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            kinds.add(kind)
            favour = favour or "favordynmods" in options
    mode = {frozenset(): "none", frozenset({"cgroup"}): "v1", frozenset({"cgroup2"}): "v2"}.get(
        frozenset(kinds), "hybrid"
    )
    return mode + (", favordynmods" if favour else "")


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown model"


def _machine_kind() -> str:
    """Virtual or real, as far as the processor tells."""
    flags = next((line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    return "virtual machine" if " hypervisor" in flags else "no hypervisor seen"


def _status(field: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return line.partition(":")[2].strip()
    return "unknown"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
