"""The soak: N sandboxes one after the other, and nothing may be left of any of them.

    python benchmarks/soak.py 10000

One run in each: mostly /bin/true, every twentieth ends by its timeout, every twentieth fails to exec. What the process,
its launcher and the kernel hold is counted before, every N/10 and after. Descriptors, mounts, cgroups, processes and
network namespaces must come back to the same number; resident memory must not climb. Exits with 1 when something grew.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import environment

from sandboxkit import Reason, Sandbox

WARM_UP = 40  # caches, arenas and the launcher's own pools fill before the first count
SETTLE_SECONDS = 20.0  # the kernel frees namespaces and cgroups in the background
RSS_SLOPE_LIMIT = 1024.0  # bytes per sandbox
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Count:
    """What is held right now. Sizes in bytes."""

    own_fds: int
    launcher_fds: int
    own_mounts: int
    launcher_mounts: int
    cgroups: int
    processes: int
    net_namespaces: int
    own_rss: int
    launcher_rss: int

    @classmethod
    def take(cls) -> Count:
        gc.collect()
        own = os.getpid()
        children = descendants(own)
        launchers = [pid for pid in children if parent_of(pid) == own]
        return cls(
            own_fds=len(links(own)),
            launcher_fds=sum(len(links(pid)) for pid in launchers),
            own_mounts=lines(own),
            launcher_mounts=sum(lines(pid) for pid in launchers),
            cgroups=sum(1 for _ in cgroup_directories()),
            processes=len(children),
            net_namespaces=len(network_namespaces([own, *children])),
            own_rss=resident(own),
            launcher_rss=sum(resident(pid) for pid in launchers),
        )

    def grown_since(self, before: Count) -> list[str]:
        """The exact counters (all but memory) that are higher than they were."""
        exact = [entry.name for entry in fields(self) if not entry.name.endswith("_rss")]
        return [name for name in exact if getattr(self, name) > getattr(before, name)]


# --- what the kernel tells ------------------------------------------------------------------------------------------


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def descendants(root: int) -> list[int]:
    """Every process below `root`. This process is a subreaper, so an orphan of the launcher shows up here as well."""
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdecimal():
            children[parent_of(int(name))].append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children[queue.pop()]
        found += below
        queue += below
    return found


def links(pid: int) -> list[str]:
    """What the descriptors of a process point to; its own directory descriptor for this listing is left out."""
    found = []
    base = f"/proc/{pid}/fd"
    for name in os.listdir(base):
        try:
            found.append(os.readlink(f"{base}/{name}"))
        except OSError:  # the descriptor of the listing itself
            continue
    return found


def lines(pid: int) -> int:
    return Path(f"/proc/{pid}/mountinfo").read_bytes().count(b"\n")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def network_namespaces(pids: list[int]) -> set[str]:
    """The network namespaces our processes are in or hold a descriptor of."""
    found = set()
    for pid in pids:
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
            found.update(link for link in links(pid) if link.startswith("net:["))
        except OSError:  # gone since
            continue
    return found


def cgroup_directories() -> Iterator[str]:
    """Every cgroup below the one this process is in, in every hierarchy, and every other one of ours by name."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if tail.split(" ", 1)[0] in ("cgroup", "cgroup2"):
            for directory, names, _ in os.walk(head.split(" ")[4]):
                yield from (os.path.join(directory, name) for name in names)


# --- the soak -------------------------------------------------------------------------------------------------------


def one_sandbox(index: int) -> None:
    """One life of a sandbox; raises when its run did not end as it had to."""
    with Sandbox() as sandbox:
        if index % 20 == 7:
            result = sandbox.run(["/bin/sleep", "60"], timeout=0.01)
            if result.reason is not Reason.WALL_TIME:
                raise AssertionError(f"sandbox {index}: expected a timeout, got {result}")
        elif index % 20 == 13:
            try:
                sandbox.run(["/no/such/program"])
            except FileNotFoundError:
                return
            raise AssertionError(f"sandbox {index}: a missing program was started")
        else:
            sandbox.run(["/bin/true"]).check()


def settled(before: Count) -> Count:
    """The count once nothing is higher than `before`, or after SETTLE_SECONDS."""
    give_up = time.monotonic() + SETTLE_SECONDS
    while True:
        count = Count.take()
        if not count.grown_since(before) or time.monotonic() > give_up:
            return count
        time.sleep(0.1)


def slope(points: list[tuple[int, int]]) -> float:
    """Bytes per sandbox, by least squares."""
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def soak(total: int) -> list[str]:
    """Run it; returns what grew."""
    for index in range(WARM_UP):
        one_sandbox(index)
    before = Count.take()
    print(f"{'after':>8}  {'per s':>7}  " + "  ".join(f"{entry.name:>15}" for entry in fields(Count)))
    print_row(0, 0.0, before)

    points = [(0, before)]
    done = 0
    for part in range(1, 11):
        goal = total * part // 10
        if goal == done:
            continue
        begin = time.perf_counter()
        for index in range(done, goal):
            one_sandbox(index)
        rate = (goal - done) / (time.perf_counter() - begin)
        done = goal
        count = settled(before)
        points.append((done, count))
        print_row(done, rate, count)

    after = points[-1][1]
    grown = [f"{name}: {getattr(before, name)} -> {getattr(after, name)}" for name in after.grown_since(before)]
    for name in ("own_rss", "launcher_rss"):
        per_sandbox = slope([(x, getattr(count, name)) for x, count in points])
        print(f"{name}: {per_sandbox:+.1f} bytes per sandbox")
        if per_sandbox > RSS_SLOPE_LIMIT:
            grown.append(f"{name}: {per_sandbox:.0f} bytes per sandbox")
    return grown


def print_row(done: int, rate: float, count: Count) -> None:
    print(
        f"{done:>8}  {rate:>7.1f}  " + "  ".join(f"{getattr(count, entry.name):>15}" for entry in fields(Count)),
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Sequential sandboxes that must leave nothing behind.")
    parser.add_argument("count", type=int, nargs="?", default=1000, help="how many (default %(default)s)")
    options = parser.parse_args()
    if options.count < 1:
        parser.error("count must be at least 1")
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    print(environment.show(environment.record()), end="\n\n", flush=True)
    grown = soak(options.count)
    for line in grown:
        print(f"GREW  {line}")
    print("failed" if grown else "nothing grew")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
