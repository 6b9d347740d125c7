"""Invariant 1: after any outcome nothing is left, and the caller is as it was. An observer process looks."""

from __future__ import annotations

import gc
import os
import pickle

import pytest

from sandboxkit import Sandbox, SandboxClosedError, SandboxError, SpecError

PRELUDE = "import os, signal, sys, time\nfrom sandboxkit import *\n"
SCENARIOS = {
    "success": "with Sandbox() as sb: assert sb.run(['true']).ok",
    "daemons": "with Sandbox() as sb: sb.run(['sh', '-c', 'setsid sleep 1000 & sleep 1000'], timeout=.3)",
    "popen-left-running": "with Sandbox() as sb: p = sb.popen(['sleep', '1000'])",
    "exception": "with Sandbox() as sb:\n  sb.popen(['sleep', '1000'])\n  raise ValueError",
    "exit-without-close": "sb = Sandbox().open(); p = sb.popen(['sleep', '1000'])",
    "killed": "sb = Sandbox().open(); p = sb.popen(['sleep', '1000']); os.kill(os.getpid(), signal.SIGKILL)",
    "killed-in-run": "import threading\nsb = Sandbox().open()\n"
    "threading.Timer(.3, os.kill, (os.getpid(), signal.SIGKILL)).start()\n"
    "sb.run(['sh', '-c', 'setsid sleep 1000 & trap : TERM; sleep 1000'])",
    "killed-with-a-fork-alive": "sb = Sandbox().open(); p = sb.popen(['sleep', '1000'])\n"
    "if os.fork() == 0: time.sleep(3); os._exit(0)\n"
    "os.kill(os.getpid(), signal.SIGKILL)",
    "os-exit": "sb = Sandbox().open(); sb.popen(['sleep', '1000']); os._exit(0)",
    "launcher-killed": "sb = Sandbox().open(); p = sb.popen(['sleep', '1000'])\n"
    "for pid in os.listdir('/proc'):\n"
    "  try: owner = os.readlink(f'/proc/{pid}/exe'), open(f'/proc/{pid}/stat').read().split(') ')[1].split()[1]\n"
    "  except (OSError, IndexError): continue\n"
    "  if 'memfd:sandboxkit' in owner[0] and owner[1] == str(os.getppid()): os.kill(int(pid), signal.SIGKILL)\n",
    "many": "boxes = [Sandbox().open() for _ in range(20)]\nfor box in boxes: assert box.run(['true']).ok",
    "interrupt-in-run": "signal.setitimer(signal.ITIMER_REAL, .5)\n"
    "def interrupt(*_): raise KeyboardInterrupt\nsignal.signal(signal.SIGALRM, interrupt)\n"
    "with Sandbox() as sb:\n  try: sb.run(['sh', '-c', 'setsid sleep 1000 & sleep 1000'])\n  except KeyboardInterrupt: pass\n"
    "  assert sb.run(['true']).ok",
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_left(observe, name):
    seen = observe(PRELUDE + SCENARIOS[name])
    assert seen.left == {}
    assert seen.returncode == {"exception": 1, "killed": -9, "killed-in-run": -9, "killed-with-a-fork-alive": -9}.get(
        name, 0
    ), seen.stderr


INTERRUPTS = """
import os, signal, sys
from sandboxkit import *
def interrupt(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
Sandbox().open().close()
caught = 0
for step in range(60):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001 * (step + 1))
        with Sandbox() as sb:
            sb.run(['true'])
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        caught += 1
    sb = None
fds = len(os.listdir('/proc/self/fd'))
print(caught, fds)
assert caught > 10
"""


def test_keyboard_interrupts_at_any_moment_leave_nothing(observe):
    """In __enter__, run and __exit__ alike: the moment moves through all of them."""
    seen = observe(INTERRUPTS)
    assert seen.returncode == 0, seen.stderr
    assert seen.left == {}


CALLER_STATE = """
import os, resource, signal, sys
from sandboxkit import *
def state():
    return (
        [signal.getsignal(n) for n in range(1, 65) if n not in (32, 33)], signal.pthread_sigmask(signal.SIG_BLOCK, []),
        os.getcwd(), [resource.getrlimit(n) for n in range(16)], dict(os.environ),
        os.listdir('/proc/self/fd'), os.listdir('/proc/self/task'), open('/proc/self/mountinfo').read(),
    )
Sandbox().open().close()
before = state()
for _ in range(5):
    with Sandbox() as sb:
        sb.run(['true']); sb.files.write_text('x', 'y')
        try: sb.run(['no-such-program'])
        except FileNotFoundError: pass
        sb.run(['sleep', '9'], timeout=.05)
        with sb.popen(['true']) as p: pass
sb = p = None
after = state()
assert before == after, (before, after)
try: os.wait()
except ChildProcessError: print('no child of ours')
"""


def test_the_callers_own_state_is_unchanged(observe):
    seen = observe(CALLER_STATE)
    assert (seen.returncode, seen.stdout) == (0, "no child of ours\n"), seen.stderr


def test_hostile_callers(observe):
    """fds 0-2 closed, few fds allowed, a deleted working directory, everything blocked."""
    seen = observe(
        "import os, resource, signal, sys, tempfile\nfrom sandboxkit import *\n"
        "out = os.dup(1)\nfor fd in (0, 1, 2): os.close(fd)\n"
        "d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d); os.umask(0o777)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\n"
        "with Sandbox() as sb: r = sb.run(['sh', '-c', 'echo fine'], stderr=None); os.write(out, r.stdout)\n"
    )
    assert (seen.returncode, seen.stdout, seen.left) == (0, "fine\n", {}), seen.stderr


def test_use_before_and_after():
    sandbox = Sandbox()
    with pytest.raises(SandboxClosedError):
        sandbox.run(["true"])
    with sandbox:
        files = sandbox.files
    for use in (
        lambda: sandbox.run(["true"]), lambda: sandbox.popen(["true"]), lambda: sandbox.files, lambda: files.list("/"),
        lambda: sandbox.enforced, sandbox.kill, sandbox.commit,
    ):  # fmt: skip
        with pytest.raises(SandboxClosedError):
            use()
    sandbox.close()
    with pytest.raises(SandboxError), sandbox:
        pass
    with sandbox.replace(hostname="again") as again:
        assert again.run(["uname", "-n"]).stdout == b"again\n"


def test_value_semantics():
    assert Sandbox(hostname="a") == Sandbox(hostname="a") != Sandbox()
    with Sandbox(hostname="a") as sandbox:
        copy = pickle.loads(pickle.dumps(sandbox))
        result = sandbox.run(["true"])
    assert copy == sandbox
    assert pickle.loads(pickle.dumps(result)).returncode == 0
    with copy:
        assert copy.run(["true"]).ok
    with pytest.raises(SpecError):
        sandbox.replace(no_such_argument=1)


def test_garbage_collection_closes():
    sandbox = Sandbox().open()
    session = sandbox._session
    del sandbox
    gc.collect()
    assert session.closed


def test_kill_ends_the_runs_and_the_sandbox_stays():
    with Sandbox() as sandbox, sandbox.popen(["sleep", "1000"]) as process:
        sandbox.kill()
        assert process.wait(10) == -9
        assert process.reason.value == "killed"
        assert sandbox.run(["true"]).ok


def test_a_result_outlives_its_sandbox():
    with Sandbox() as sandbox:
        result = sandbox.run(["true"])
    assert result.enforced["capabilities"]
    assert os.getpid() not in result.enforced
