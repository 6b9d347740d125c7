"""The acceptance walk: everything Docker is made of, on a root that `docker export` wrote."""

from __future__ import annotations

import os
import tarfile
import time

import pytest

from sandboxkit import CgroupLimit, Reason, RootFS, Sandbox, User

ROOT = os.geteuid() == 0
SUPERUSER = User(uid=0, gid=0)


@pytest.fixture(scope="module")
def rootfs(busybox_tar):
    return RootFS.tar(busybox_tar)


@pytest.fixture
def sb(rootfs):
    with Sandbox(rootfs, user=SUPERUSER, hostname="walk") as sandbox:
        yield sandbox


def test_change_of_root_shows_only_the_tars_tree(sb, busybox_tar):
    with tarfile.open(busybox_tar) as archive:
        top = {name.split("/")[0] for name in archive.getnames()}
    assert set(sb.run(["ls", "-A", "/"], text=True).stdout.split()) == top
    listing = sb.run(["ls", "-ld", "/.."], text=True).stdout
    assert listing.split()[2] == "root"


def test_no_host_network(sb):
    assert sb.run(["ip", "route"]).stdout == b""
    links = [line for line in sb.run(["ip", "link"], text=True).stdout.splitlines() if not line.startswith(" ")]
    assert len(links) == 1
    assert "lo: <LOOPBACK,UP" in links[0]


def test_only_its_own_processes_from_one_on(sb):
    lines = sb.run(["ps", "-o", "pid,comm"], text=True).stdout.splitlines()[1:]
    assert lines[0].split() == ["1", "sandboxkit"]
    assert {line.split()[1] for line in lines} <= {"sandboxkit", "ps"}


def test_its_own_hostname(sb):
    assert sb.run(["hostname"]).stdout == b"walk\n"


def test_host_ipc_is_invisible(sb):
    assert len(sb.run(["cat", "/proc/sysvipc/shm"]).stdout.splitlines()) == 1
    assert sb.run(["ls", "/dev/shm"]).stdout == b""


def test_a_memory_hog_ends_at_its_limit(rootfs):
    limits = CgroupLimit(memory="32M", pids=256)
    hog = "x=0123456789abcdef; while :; do x=$x$x; done"
    with Sandbox(rootfs, limits=limits, allow_degraded={"memory"}) as sandbox:
        result = sandbox.shell(hog, timeout=120)
        if sandbox.enforced["memory"].by.startswith("cgroup"):
            assert result.reason is Reason.MEMORY
            assert result.limits_hit == {"memory"}
        else:  # the stand-in: the program is refused more memory, for each process by itself
            assert sandbox.enforced["memory"].by == "rlimit"
            assert not result.ok
        assert sandbox.run(["true"]).ok
    assert ROOT is False or result.reason is Reason.MEMORY


def test_a_fork_bomb_stops_at_the_pids_limit(rootfs):
    bomb = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; wait"
    with Sandbox(rootfs, limits=CgroupLimit(memory="256M", pids=20), allow_degraded={"memory"}) as sandbox:
        with sandbox.popen(["sh", "-c", bomb]) as process:
            assert b"fork" in process.stderr.readline()
            for _ in range(50):
                time.sleep(0.02)
            processes = [info for info in os.listdir("/proc") if info.isdigit()]
            assert len(processes) > 0
            count = sum(1 for pid in processes if _is_sleep_1000(pid))
            assert 10 <= count <= 20
            process.kill()
        assert sandbox.run(["true"]).ok


def _is_sleep_1000(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read() == b"sleep\x001000\x00"
    except OSError:
        return False


def test_writes_land_in_the_upper_layer_and_a_commit_is_seen_by_the_next(sb, rootfs):
    sb.run(["sh", "-c", "echo built > /artifact && rm /etc/hostname"], check=True)
    layer = sb.commit()
    with Sandbox(rootfs, user=SUPERUSER) as plain:
        assert not plain.files.exists("/artifact")
        assert plain.files.exists("/etc/hostname")
    with Sandbox(rootfs, layers=[layer], user=SUPERUSER) as stacked:
        assert stacked.run(["cat", "/artifact"]).stdout == b"built\n"
        assert not stacked.files.exists("/etc/hostname")
