"""Who a program is: inside, and to the host."""

from __future__ import annotations

import os

import pytest

from sandboxkit import Sandbox, UnsupportedError, User
from sandboxkit.runtime.host import current_authority

AUTHORITY = current_authority()
SEVERAL_IDS = AUTHORITY.root or AUTHORITY.subordinate is not None


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (1000, 1000), (1, 2), (65533, 65533)])
def test_ids_inside_and_outside(uid, gid):
    with Sandbox(user=User(uid=uid, gid=gid)) as sb:
        assert sb.shell("id -u; id -g").stdout.split() == [str(uid).encode(), str(gid).encode()]
        sb.files.write_text("mine", "")
        info = sb.files.stat("mine")
        assert (info.uid, info.gid) == (uid, gid)
        with sb.popen(["sleep", "1000"]) as process:
            owner = os.stat(f"/proc/{process.pid}").st_uid
            process.kill()
    assert owner >= 0x70000000 if AUTHORITY.root else owner == os.geteuid()


def test_supplementary_groups_are_the_ones_asked_for():
    user = User(groups=(5, 6))
    if not SEVERAL_IDS:
        with pytest.raises(UnsupportedError) as failure, Sandbox(user=user):
            pass
        assert "subuid" in failure.value.fix
        return
    with Sandbox(user=user) as sb:
        assert sb.run(["id", "-G"]).stdout == b"1000 5 6\n"
    with Sandbox() as sb:
        assert sb.run(["id", "-G"]).stdout == b"1000\n"


def test_the_id_map_is_as_documented():
    with Sandbox() as sb:
        lines = sb.run(["cat", "/proc/self/uid_map"], text=True).stdout.splitlines()
    mapped = sum(int(line.split()[2]) for line in lines)
    assert mapped == (65536 if SEVERAL_IDS else 1)
