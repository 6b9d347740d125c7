"""`Sandbox.popen`: the shape of subprocess.Popen."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import warnings

import pytest

from sandboxkit import Process, Reason, Sandbox


@pytest.fixture(scope="module")
def sb():
    with Sandbox() as sandbox:
        yield sandbox


def test_communicate(sb):
    with sb.popen(["cat"], stdin=subprocess.PIPE, text=True) as process:
        assert process.communicate("hello") == ("hello", "")
        assert process.returncode == 0
        assert process.reason is Reason.EXITED


def test_communicate_again_after_a_timeout_loses_nothing(sb):
    with sb.popen(["sh", "-c", "echo one; sleep .5; echo two"]) as process:
        with pytest.raises(subprocess.TimeoutExpired) as late:
            process.communicate(timeout=0.2)
        assert late.value.output == b"one\n"
        assert process.communicate() == (b"one\ntwo\n", b"")


def test_pid_is_the_callers_view(sb):
    with sb.popen(["sleep", "1000"]) as process:
        with open(f"/proc/{process.pid}/comm") as comm:
            assert comm.read() == "sleep\n"
        process.kill()


def test_signals_reach_the_main_process_and_kill_the_tree(sb):
    with sb.popen(["sleep", "1000"]) as process:
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
    with sb.popen(["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"]) as process:
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        assert process.reason is Reason.KILLED


def test_wait_times_out(sb):
    with sb.popen(["sleep", "1000"]) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.kill()


def test_descendants_live_until_the_handle_is_closed(sb):
    process = sb.popen(["sh", "-c", "sleep 1000 & echo $!"], text=True)
    child = process.stdout.readline().strip()
    assert process.wait(10) == 0
    assert sb.run(["test", "-d", f"/proc/{child}"]).ok
    process.close()
    assert not sb.run(["test", "-d", f"/proc/{child}"]).ok


def test_leaving_by_an_exception_kills(sb):
    with pytest.raises(ZeroDivisionError), sb.popen(["sleep", "1000"]) as process:
        raise ZeroDivisionError
    assert process.reason is Reason.KILLED
    assert not os.path.exists(f"/proc/{process.pid}/comm")


def test_a_dropped_handle_kills_and_warns(sb):
    process = sb.popen(["sleep", "1000"])
    pid = process.pid
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del process
        gc.collect()
    assert any(issubclass(warning.category, ResourceWarning) for warning in caught)
    assert not os.path.exists(f"/proc/{pid}/comm")


def test_a_server_and_its_client_talk_through_loopback(sb):
    server = "import socket; s = socket.create_server(('127.0.0.1', 8080)); print('up', flush=True); c, _ = s.accept()"
    client = "import socket; socket.create_connection(('127.0.0.1', 8080)); print('connected')"
    with sb.popen(["python3", "-c", server], text=True) as process:
        assert process.stdout.readline() == "up\n"
        assert sb.run(["python3", "-c", client], text=True, timeout=30).stdout == "connected\n"


def test_no_public_constructor():
    with pytest.raises(TypeError):
        Process()


def test_start_failures_raise(sb):
    with pytest.raises(FileNotFoundError):
        sb.popen(["no-such-program"])
