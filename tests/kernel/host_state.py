"""What exists on this host, as a set of tagged strings: the things no sandbox may leave behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

_MARK = "sandboxkit"


def processes() -> dict[int, tuple[int, str, str]]:
    """pid -> (parent, state, start time and name) of everything in /proc."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                head, _, tail = file.read().rpartition(")")
        except OSError:
            continue
        fields = tail.split()
        found[int(name)] = (int(fields[1]), fields[0], f"{fields[19]} {head.partition('(')[2]}")
    return found


def descendants(root: int) -> dict[int, tuple[int, str, str]]:
    """All that descends from `root`, which is a subreaper: nothing that its children start can get out of this."""
    everything = processes()
    ours: set[int] = {root}
    while True:
        more = {pid for pid, (parent, _, _) in everything.items() if parent in ours} - ours
        if not more:
            return {pid: everything[pid] for pid in ours - {root}}
        ours |= more


def _mounts() -> Iterator[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            yield f"mount: {line.strip()}"


def _cgroups() -> Iterator[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    for fields in lines:
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2"):
            for directory, names, _ in os.walk(fields[4]):
                yield from (f"cgroup: {directory}/{name}" for name in names if _MARK in name)


def _network_namespaces() -> Iterator[str]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                yield f"network namespace: {os.readlink(f'/proc/{name}/ns/net')}"
            except OSError:
                continue


def _devices() -> Iterator[str]:
    for name in os.listdir("/sys/class/net"):
        yield f"network device: {name}"


def _ipc() -> Iterator[str]:
    for kind in ("msg", "sem", "shm"):
        try:
            with open(f"/proc/sysvipc/{kind}", encoding="ascii") as file:
                for line in list(file)[1:]:
                    yield f"{kind}: key {line.split()[0]} id {line.split()[1]}"
        except OSError:
            continue


def _files(directories: list[str]) -> Iterator[str]:
    for top in directories:
        for directory, folders, names in os.walk(top):
            yield from (f"file: {directory}/{name}" for name in (*folders, *names))
    for top in ("/dev/shm", "/dev/mqueue"):
        if os.path.isdir(top):
            yield from (f"file: {top}/{name}" for name in os.listdir(top))
    for top in ("/tmp", "/var/tmp", "/run"):
        yield from (f"file: {top}/{name}" for name in os.listdir(top) if _MARK in name or "sbx" in name)


def snapshot(directories: list[str]) -> frozenset[str]:
    """`directories`: the temporary and cache directories of the observed process, looked at in depth."""
    return frozenset((*_mounts(), *_cgroups(), *_network_namespaces(), *_devices(), *_ipc(), *_files(directories)))
