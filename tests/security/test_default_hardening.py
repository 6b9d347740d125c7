"""What a program finds when it looks around: nothing of the caller, no power, nothing left open."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from sandboxkit import Reason, Sandbox, User
from sandboxkit.runtime.host import current_authority

ROOT = os.geteuid() == 0
SEVERAL_IDS = ROOT or current_authority().subordinate is not None


@pytest.fixture(scope="module")
def sb():
    with Sandbox() as sandbox:
        yield sandbox


def python(sandbox: Sandbox, script: str, **options: object) -> str:
    result = sandbox.run(["python3", "-c", script], text=True, timeout=60, **options)
    assert result.ok, result.stderr
    return result.stdout


def test_no_capability_in_any_set_of_any_task(sb):
    script = """
import glob
for path in glob.glob('/proc/[0-9]*/task/*/status'):
    fields = dict(line.rstrip('\\n').split(':\\t', 1) for line in open(path))
    print([int(fields[n], 16) for n in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')], fields['NoNewPrivs'])
"""
    lines = python(sb, script).splitlines()
    assert len(lines) >= 3  # init, keeper, the program
    assert set(lines) == {"[0, 0, 0, 0, 0] 1"}


def test_uid_zero_inside_has_no_power_and_is_not_host_root():
    with Sandbox(user=User(uid=0, gid=0)) as sandbox:
        fields = python(sandbox, "print(open('/proc/self/status').read())")
        assert "CapEff:\t0000000000000000" in fields
        assert not sandbox.run(["chroot", "/", "true"]).ok
        assert not sandbox.run(["mount", "-t", "tmpfs", "x", "/tmp"]).ok
        if ROOT:
            maps = python(sandbox, "print(open('/proc/self/uid_map').read(), open('/proc/self/gid_map').read())")
            assert all(int(first) != 0 for first in maps.split()[1::3])
            for knob in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname"):
                assert not sandbox.run(["sh", "-c", f": > {knob}"]).ok


def test_two_sandboxes_have_different_host_ids_or_the_callers():
    with Sandbox() as one, Sandbox() as two:
        owners = []
        for sandbox in (one, two):
            with sandbox.popen(["sleep", "1000"]) as process:
                owners.append(os.stat(f"/proc/{process.pid}").st_uid)
                process.kill()
    if ROOT:
        assert 0 not in owners
        assert owners[0] != owners[1]
    else:
        assert owners == [os.geteuid()] * 2


def test_only_the_sandboxs_own_processes(sb):
    pids = python(
        sb, "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[0], os.getppid())"
    ).split()
    assert pids[0] == "1"
    names = python(sb, "import glob; print({open(p).read().strip() for p in glob.glob('/proc/[0-9]*/comm')})")
    assert names == "{'sandboxkit', 'python3'}\n" or "sandboxkit" in names


def test_init_and_keeper_cannot_be_looked_into(sb):
    for name in ("environ", "mem", "maps", "fd", "root", "cwd", "exe"):
        result = sb.run(["sh", "-c", f"cat /proc/1/{name}; ls /proc/1/{name}/"])
        assert result.stdout == b"", name


def test_nothing_is_open_but_the_three(sb):
    with open("/etc/passwd") as leaked:
        high = fcntl.fcntl(leaked.fileno(), fcntl.F_DUPFD, 1000)
        os.set_inheritable(high, True)
        try:
            script = "import os; print(sorted(int(f) for f in os.listdir('/proc/self/fd')))"
            assert python(sb, script) == "[0, 1, 2, 3]\n"  # 3 is the directory being listed
        finally:
            os.close(high)


def test_signal_state_umask_and_session_are_fresh():
    """Python ignores SIGPIPE; the caller may ignore SIGCHLD, block everything, and have a umask of 777."""
    caller = """
import os, signal
from sandboxkit import Sandbox
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
os.umask(0o777)
with Sandbox() as sb:
    script = '''
import os
fields = dict(l.split(':', 1) for l in open('/proc/self/status'))
print(fields['SigBlk'].strip(), fields['SigIgn'].strip(), fields['Umask'].strip(), os.getsid(0) == os.getpid())
'''
    print(sb.run(['python3', '-I', '-c', script], text=True).stdout, end='')
    print(oct(os.umask(0)))
"""
    lines = subprocess.run(
        [sys.executable, "-c", caller], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    blocked, ignored, umask, leader = lines[0].split()
    assert int(blocked, 16) == 0
    # The interpreter inside ignores SIGPIPE and SIGXFSZ by itself.
    assert int(ignored, 16) & ~(1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0
    assert (umask, leader) == ("0022", "True")
    assert lines[1] == "0o777"


def test_the_hosts_mounts_are_out_of_reach(sb):
    mounts = python(sb, "print(open('/proc/self/mountinfo').read())").splitlines()
    assert all(" / / " not in line or "tmpfs" in line for line in mounts[:1])
    above = python(
        sb, "import os; a, b = os.stat('/'), os.stat('/..'); print((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))"
    )
    assert above == "True\n"
    assert not sb.files.exists(os.path.abspath(__file__))


def test_every_mount_is_nosuid(sb):
    lines = python(sb, "print(open('/proc/self/mounts').read())").split("\n")
    assert [line for line in lines if line and "nosuid" not in line.split()[3].split(",")] == []


def test_the_root_and_usr_are_readonly(sb):
    for place in ("/", "/usr", "/etc", "/dev"):
        assert not sb.run(["sh", "-c", f": > {place}/x"]).ok


def test_ipc_and_network_of_the_host_are_invisible(sb):
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.msgget(0, 0o600 | 0o1000)
    assert queue >= 0
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0sandboxkit-test-canary")
    abstract.listen()
    server = socket.create_server(("127.0.0.1", 0))
    try:
        assert python(sb, "print(len(open('/proc/sysvipc/msg').readlines()))") == "1\n"
        script = f"""
import socket
for family, address in ((socket.AF_UNIX, '\\0sandboxkit-test-canary'), (socket.AF_INET, {server.getsockname()!r})):
    try: socket.socket(family).connect(address); print('reached')
    except OSError as error: print(type(error).__name__)
"""
        assert python(sb, script) == "ConnectionRefusedError\nConnectionRefusedError\n"
    finally:
        libc.msgctl(queue, 0, None)
        abstract.close()
        server.close()


def test_loopback_works_for_both_families(sb):
    script = """
import socket
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    s = socket.socket(family); s.bind((host, 0)); s.listen()
    c = socket.socket(family); c.connect(s.getsockname()); print('ok')
print(socket.if_nameindex())
"""
    assert python(sb, script) == "ok\nok\n[(1, 'lo')]\n"


def test_no_new_user_namespace_gives_power_over_the_others(sb):
    script = (
        "import os, ctypes\nr = ctypes.CDLL(None).unshare(0x10000000 | 0x20000)\nprint(r, os.path.exists('/root/.ssh'))"
    )
    assert python(sb, script).split()[1] == "False"


def test_the_supervisors_cannot_be_signalled(sb):
    """With a single id (rootless) a keeper can be; the run then ends as killed, and nothing of it is left."""
    if not SEVERAL_IDS:
        result = sb.run(["sh", "-c", "sleep 1000 & kill -9 $PPID; sleep 1000"], timeout=30)
        assert result.reason is Reason.KILLED
        assert "sleep" not in python(sb, "import glob; print([open(p).read() for p in glob.glob('/proc/[0-9]*/comm')])")
        return
    script = "import os\nfor pid in (1, os.getppid()):\n    try: os.kill(pid, 9); print('sent')\n    except PermissionError: print('refused')\n"
    assert python(sb, script).split()[1] == "refused"


def test_pid_one_survives_every_signal(sb):
    sb.run(["sh", "-c", "for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; true"])
    assert sb.run(["true"]).ok


def test_the_clock_cannot_be_set(sb):
    assert not sb.run(["date", "-s", "2000-01-01"]).ok


def test_core_dumps_are_off_and_limits_are_set(sb):
    limits = python(
        sb, "import resource as r; print([r.getrlimit(n) for n in (r.RLIMIT_CORE, r.RLIMIT_NOFILE, r.RLIMIT_MEMLOCK)])"
    )
    assert limits == "[(0, 0), (4096, 4096), (65536, 65536)]\n"


def test_reason_is_never_guessed_from_a_signal(sb):
    assert sb.run(["sh", "-c", "kill -9 $$"]).reason is Reason.SIGNALED
