"""`python -m sandboxkit doctor`."""

from __future__ import annotations

import json
import subprocess
import sys


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandboxkit", "doctor", *arguments], capture_output=True, text=True, check=False
    )


def test_json_says_the_same_as_the_exit_status():
    done = doctor("--json")
    report = json.loads(done.stdout)
    assert report["usable"] is (done.returncode == 0)
    names = {(finding["group"], finding["name"]) for finding in report["findings"]}
    for name in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"):
        assert ("namespaces", name) in names
    assert {("kernel", "openat2"), ("kernel", "landlock"), ("file systems", "overlay"), ("cgroups", "mode")} <= names


def test_text_names_a_fix_for_what_is_missing():
    done = doctor()
    assert done.stdout.splitlines()[-1] in ("sandboxes can be made here", "no sandbox can be made here")


def test_forbidden_user_namespaces_are_explained():
    """In a user namespace whose limit is 0, as on a host that forbids them: no sandbox, and the switch is named."""
    script = (
        "import os, ctypes\n"
        "uid, gid = os.getuid(), os.getgid()\n"
        "assert ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0\n"
        "open('/proc/self/setgroups', 'w').write('deny')\n"
        "open('/proc/self/uid_map', 'w').write(f'1000 {uid} 1')\n"
        "open('/proc/self/gid_map', 'w').write(f'1000 {gid} 1')\n"
        "open('/proc/sys/user/max_user_namespaces', 'w').write('0')\n"
        "from sandboxkit import Sandbox, UnsupportedError\n"
        "try:\n"
        "    Sandbox().open()\n"
        "except UnsupportedError as error:\n"
        "    print(error.feature, '|', error.fix)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "unprivileged user namespace" in done.stdout
    assert "max_user_namespaces" in done.stdout
    assert "AppArmor" in done.stdout
