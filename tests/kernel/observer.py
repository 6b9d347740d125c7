"""Watches a scenario from outside: everything it leaves behind on the host after its process is gone.

Runs as a process of its own: a subreaper, so that what the scenario orphans becomes our child and can be counted, and
zombies are reaped here instead of lingering with the system's init.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def cgroups(owner: int) -> list[str]:
    """Those that this process had made: their names bear its pid."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup"):
            for directory, names, _ in os.walk(left.split()[4]):  # unlike rglob it bears directories that vanish
                found += [os.path.join(directory, name) for name in names if name.startswith(f"sandboxkit-{owner}-")]
    return sorted(found)


def descendants() -> list[str]:
    """All processes below us, zombies included after a reap."""
    parents, names = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                name, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
            except OSError:
                continue
            parents[int(entry)], names[int(entry)] = int(rest.split()[1]), name
    ours, grew = {os.getpid()}, True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours |= more
        grew = bool(more)
    return sorted(names[pid] for pid in ours - {os.getpid()})


def snapshot(owner: int = 0) -> dict[str, object]:
    return {
        "processes": descendants(),
        "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
        "cgroups": cgroups(owner),
        "ipc": [Path(f"/proc/sysvipc/{kind}").read_text() for kind in ("msg", "sem", "shm")],
        "shm": sorted(os.listdir("/dev/shm")),
        "temporary": sorted(name for name in os.listdir(os.environ.get("TMPDIR", "/tmp")) if "sandboxkit" in name),
        "scratch": sorted(
            directory for directory, _, _ in os.walk(os.environ["XDG_CACHE_HOME"]) if "/.tmp-" in directory
        ),
    }


def settled(before: dict[str, object], owner: int) -> dict[str, object]:
    """The differences, once they are gone or after long enough: teardown after a killed caller goes on by itself."""
    for _ in range(500):
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        after = snapshot(owner)
        if after == before:
            return {}
        time.sleep(0.02)
    return {name: [before[name], after[name]] for name in before if before[name] != after[name]}


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = snapshot()
    scenario = subprocess.Popen(
        [sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    stdout, stderr = scenario.communicate(timeout=120)
    left = settled(before, scenario.pid)
    report = {"returncode": scenario.returncode, "stdout": stdout, "stderr": stderr, "left": left}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
