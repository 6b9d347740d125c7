"""Namespaces: made, shared, joined; time offsets and host names."""

from __future__ import annotations

import os
import time

import pytest

from sandboxkit import Namespace, Network, Sandbox, SpecError, UnsupportedError

ROOT = os.geteuid() == 0
ALL = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


def inodes(sandbox: Sandbox) -> dict[str, int]:
    script = "import os\nfor n in sorted(os.listdir('/proc/self/ns')): print(n, os.stat('/proc/self/ns/' + n).st_ino)"
    lines = sandbox.run(["python3", "-c", script], text=True, check=True).stdout.splitlines()
    return {name: int(number) for name, number in (line.split() for line in lines)}


def host(name: str) -> int:
    return os.stat(f"/proc/self/ns/{name}").st_ino


def test_all_are_new_and_time_is_not():
    with Sandbox() as sb:
        found = inodes(sb)
    assert all(found[name] != host(name) for name in ALL)
    assert found["time"] == host("time")


@pytest.mark.parametrize("name", ["net", "ipc", "uts", "cgroup"])
def test_without_one_it_is_shared(name):
    with Sandbox(namespaces=Namespace.without(name)) as sb:
        found = inodes(sb)
        assert not sb.enforced[f"namespace:{name}"]
    assert found[name] == host(name)
    assert all(found[other] != host(other) for other in ALL if other != name)


def test_without_user_as_root_the_ids_are_still_private():
    if not ROOT:
        with pytest.raises(UnsupportedError), Sandbox(namespaces=Namespace.without("user")):
            pass
        return
    with Sandbox(namespaces=Namespace.without("user")) as sb:
        assert inodes(sb)["user"] == host("user")
        assert int(sb.run(["id", "-u"]).stdout) >= 0x70000000
        sb.files.write_text("x", "y")


@pytest.mark.parametrize("name", ["mnt", "pid"])
def test_what_cannot_be_left_out(name):
    with pytest.raises(SpecError):
        Namespace.without(name)


def test_joining_another_sandboxs():
    with Sandbox(hostname="first") as first, first.popen(["sleep", "1000"]) as anchor:
        namespaces = Namespace.join("net", anchor.pid).joining("ipc", f"/proc/{anchor.pid}/ns/ipc")
        fd = os.open(f"/proc/{anchor.pid}/ns/uts", os.O_RDONLY)
        with Sandbox(namespaces=namespaces.joining("uts", fd=fd).joining("pid", anchor.pid)) as second:
            mine, theirs = inodes(second), inodes(first)
            assert second.run(["hostname"]).stdout == b"first\n"
            left_running = second.popen(["sleep", "4321"])
        assert left_running.pid > 0
        assert first.run(["pgrep", "-f", "^sleep 4321"]).stdout == b""
        os.close(fd)
        assert {name for name in ALL if mine[name] == theirs[name]} == {"net", "ipc", "uts", "pid"}
        assert anchor.poll() is None  # closing the second left the first alone
        anchor.kill()


def test_network_join_and_host():
    with Sandbox() as first, first.popen(["sleep", "1000"]) as anchor:
        with Sandbox(network=Network.join(pid=anchor.pid)) as second:
            assert inodes(second)["net"] == inodes(first)["net"]
        anchor.kill()
    with Sandbox(network=Network.host()) as shared:
        assert inodes(shared)["net"] == host("net")


def test_time_offsets():
    script = "import time; print(time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME))"
    with Sandbox(namespaces=Namespace.all(monotonic=100_000, boottime=-1.5)) as sb:
        monotonic, boottime = (float(part) for part in sb.run(["python3", "-c", script], check=True).stdout.split())
        assert inodes(sb)["time"] != host("time")
    assert abs(monotonic - time.clock_gettime(time.CLOCK_MONOTONIC) - 100_000) < 60
    assert boottime < time.clock_gettime(time.CLOCK_BOOTTIME)


def test_hostname():
    with Sandbox(hostname="judge-7") as sb:
        assert sb.run(["uname", "-n"]).stdout == b"judge-7\n"
        assert sb.run(["sh", "-c", "hostname other 2>/dev/null; uname -n"]).stdout == b"judge-7\n"
