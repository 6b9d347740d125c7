"""Where cgroups can be made, read from captured mount tables of the layouts that exist."""

from __future__ import annotations

import pytest

from sandboxkit.runtime.cgroup_layout import read_layout

V1 = "31 1 0:28 / /cg/memory rw - cgroup cgroup rw,memory\n32 1 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n33 1 0:9 / /cg/pids rw - cgroup cgroup rw,pids"
UNIFIED = "41 1 0:38 / /cg/unified rw - cgroup2 cgroup2 rw"
V2 = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
PRIVATE = "30 1 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
USER = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope"


def layout(mountinfo, cgroups, files=None, writable=lambda path: True):
    return read_layout(mountinfo, cgroups, read=(files or {}).get, may_create=writable)


def test_v1():
    found = layout(V1, "4:memory:/a/b\n3:cpu,cpuacct:/\n2:pids:/")
    assert found.mode == "v1"
    assert found.controllers["memory"] == (1, "/cg/memory/a/b")
    assert found.controllers["cpu"] == (1, "/cg/cpu")
    assert "io" in found.reasons


def test_hybrid():
    found = layout(
        f"{V1}\n{UNIFIED}", "4:memory:/\n3:cpu,cpuacct:/\n2:pids:/\n0::/", {"/cg/unified/cgroup.controllers": "hugetlb"}
    )
    assert found.mode == "hybrid"
    assert found.controllers["memory"][0] == 1
    assert "no internal processes" in found.reasons["hugetlb"]


def test_v2_where_processes_live():
    files = {
        f"/sys/fs/cgroup{USER}/cgroup.controllers": "memory pids",
        f"/sys/fs/cgroup{USER}/cgroup.subtree_control": "",
    }
    found = layout(V2, f"0::{USER}", files)
    assert found.mode == "v2"
    assert found.controllers == {}
    assert "not available" in found.reasons["cpu"]


def test_v2_delegated():
    files = {f"/sys/fs/cgroup{USER}/{name}": "memory pids" for name in ("cgroup.controllers", "cgroup.subtree_control")}
    assert layout(V2, f"0::{USER}", files).controllers["pids"] == (2, f"/sys/fs/cgroup{USER}")
    denied = layout(V2, f"0::{USER}", files, writable=lambda path: False)
    assert "not writable" in denied.reasons["pids"]


def test_a_mount_that_shows_a_part():
    files = {"/sys/fs/cgroup/x/cgroup.controllers": "pids", "/sys/fs/cgroup/x/cgroup.subtree_control": "pids"}
    assert layout(PRIVATE, "0::/docker/abc/x", files).controllers["pids"] == (2, "/sys/fs/cgroup/x")
    assert "not visible" in layout(PRIVATE, "0::/docker/abcdef", files).reasons["pids"]
    assert "not visible" in layout(PRIVATE, "0::/../other", files).reasons["pids"]


@pytest.mark.parametrize("mountinfo", ["", "nonsense\n - \n1 2 3 - cgroup2"])
def test_none(mountinfo):
    found = layout(mountinfo, "")
    assert (found.mode, found.controllers) == ("none", {})
