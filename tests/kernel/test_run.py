"""`Sandbox.run`: subprocess's meaning wherever it has its names, and the hard cases of reading and ending programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from sandboxkit import CommandFailed, LaunchError, Reason, Sandbox, SandboxError, SpecError


@pytest.fixture(scope="module")
def sb():
    with Sandbox() as sandbox:
        yield sandbox


def test_captures_both_streams(sb):
    result = sb.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.stdout, result.stderr, result.returncode) == (b"out\n", b"err\n", 3)
    assert result.reason is Reason.EXITED
    assert not result.ok


def test_python_of_the_caller_runs(sb):
    result = sb.run(["python3", "-c", "import sys; print(sys.version_info[:2])"], text=True)
    assert result.stdout == f"{tuple(sys.version_info[:2])}\n"


def test_text_replaces_what_is_not_utf8(sb):
    assert sb.run(["printf", r"\377"], text=True).stdout == "\ufffd"
    assert sb.run(["printf", r"\377"]).stdout == b"\xff"


def test_stdin_is_empty_by_default(sb):
    assert sb.run(["cat"]).stdout == b""


def test_stdout_to_a_file_and_stderr_merged(sb, tmp_path):
    with open(tmp_path / "out", "wb") as file:
        result = sb.run(["sh", "-c", "echo a; echo b >&2"], stdout=file, stderr=subprocess.STDOUT)
    assert result.stdout is None
    assert (tmp_path / "out").read_bytes() == b"a\nb\n"


@pytest.mark.parametrize(
    "args",
    [
        [],
        [""],
        ["no-such-program"],
        ["/no/such/program"],
        ["/usr"],
        ["/etc/passwd"],
        ["a\0b"],
        ["/etc/passwd/x"],
        ["true", "x" * 3_000_000],
    ],
    ids=["empty", "empty-word", "unknown", "unknown-path", "directory", "no-x-bit", "nul", "not-a-dir", "too-long"],
)
def test_start_failures_raise_what_subprocess_raises(sb, args, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    with pytest.raises(Exception) as theirs:
        subprocess.run(args, check=False)
    with pytest.raises(SandboxError) as ours:
        sb.run(args)
    assert isinstance(ours.value, type(theirs.value))
    if isinstance(ours.value, LaunchError):
        assert ours.value.step == "exec"
        assert ours.value.errno == theirs.value.errno


def test_bad_interpreter_line_and_no_interpreter_line(sb):
    sb.files.write_text("/box/script", "#!/no/such/interpreter\n", mode=0o755)
    with pytest.raises(FileNotFoundError):
        sb.run(["/box/script"])
    sb.files.write_text("/box/raw", "echo hi\n", mode=0o755)
    with pytest.raises(LaunchError) as failure:
        sb.run(["/box/raw"])
    assert failure.value.strerror == "Exec format error"


def test_a_missing_cwd_is_named_and_not_blamed_on_the_program(sb):
    with pytest.raises(LaunchError) as failure:
        sb.run(["true"], cwd="/no/such/place")
    assert failure.value.step == "cwd"
    assert failure.value.path == "/no/such/place"
    assert isinstance(failure.value, FileNotFoundError)


def test_environment_is_clean_and_merged(sb, monkeypatch):
    monkeypatch.setenv("A_SECRET_OF_THE_CALLER", "x")
    lines = sb.run(["env"], env={"EXTRA": "1", "LANG": None}, text=True).stdout.splitlines()
    assert {line.split("=")[0] for line in lines} == {"PATH", "HOME", "EXTRA"}


def test_timeout_is_a_reason_and_keeps_the_output(sb):
    result = sb.run(["sh", "-c", "echo before; sleep 1000"], timeout=0.3)
    assert result.reason is Reason.WALL_TIME
    assert result.returncode == -signal.SIGKILL
    assert result.stdout == b"before\n"
    assert result.limits_hit == {"wall_time"}


def test_infinite_and_zero_timeouts(sb):
    assert sb.run(["true"], timeout=float("inf")).ok
    assert sb.run(["sleep", "1000"], timeout=0).reason is Reason.WALL_TIME


def test_check_raises_both_of_subprocess_errors(sb):
    with pytest.raises(CommandFailed) as failure:
        sb.run(["false"], check=True)
    assert isinstance(failure.value, subprocess.CalledProcessError)
    assert failure.value.returncode == 1
    with pytest.raises(subprocess.TimeoutExpired) as late:
        sb.run(["sleep", "1000"], timeout=0.1, check=True)
    assert isinstance(late.value, CommandFailed)


def test_a_gigabyte_of_output_is_cut_at_the_cap(sb):
    result = sb.run(["head", "-c", "1G", "/dev/zero"], max_output="1M", timeout=120)
    assert result.ok
    assert len(result.stdout) == 1 << 20
    assert result.truncated.stdout
    assert not result.truncated.stderr
    assert "output" in result.limits_hit


def test_too_much_output_can_kill(sb):
    result = sb.run(["sh", "-c", "yes; sleep 1000"], max_output=1000, on_overflow="kill")
    assert result.reason is Reason.OUTPUT
    assert len(result.stdout) == 1000


def test_fifty_megabytes_of_input(sb):
    data = os.urandom(1 << 20) * 50
    assert sb.run(["wc", "-c"], input=data, timeout=120).stdout.strip() == str(len(data)).encode()
    slow = "import sys, time; sys.stdin.buffer.read(1000); time.sleep(.2); print(len(sys.stdin.buffer.read()))"
    assert sb.run(["python3", "-c", slow], input=data, timeout=120).stdout.strip() == str(len(data) - 1000).encode()
    assert sb.run(["true"], input=data, timeout=60).ok
    assert sb.run(["sleep", "1000"], input=data, timeout=0.3).reason is Reason.WALL_TIME


def test_a_program_that_closes_its_stdout_lives_on(sb):
    script = "echo first; exec >&-; sleep .3; echo last >&2"
    result = sb.run(["sh", "-c", script], timeout=60)
    assert (result.stdout, result.stderr) == (b"first\n", b"last\n")


ESCAPE = """
import os, signal, sys, time
for round in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            time.sleep(1000)
        os._exit(0)
print('started', flush=True)
time.sleep(float(sys.argv[1]))
"""


def count_processes(sb: Sandbox) -> int:
    script = "import os; print(sum(entry.isdigit() for entry in os.listdir('/proc')))"
    return int(sb.run(["python3", "-c", script]).stdout)


@pytest.mark.parametrize("lifetime", ["0", "1000"], ids=["main-exits", "timeout"])
def test_daemons_are_gone_when_run_returns(sb, lifetime):
    """setsid, double fork, SIGTERM ignored, and the pipe kept open: none of it outlives or delays the run."""
    before = count_processes(sb)
    result = sb.run(["python3", "-c", ESCAPE, lifetime], timeout=2)
    assert result.stdout == b"started\n"
    assert result.reason is (Reason.EXITED if lifetime == "0" else Reason.WALL_TIME)
    assert count_processes(sb) == before


def test_a_fork_bomb_ends_with_its_timeout(sb):
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"
    before = count_processes(sb)
    result = sb.run(["python3", "-c", bomb], timeout=1)
    assert result.reason in (Reason.WALL_TIME, Reason.KILLED)
    assert count_processes(sb) == before


def test_killing_everything_inside_ends_the_run_and_leaves_a_usable_sandbox(sb):
    result = sb.run(["sh", "-c", "sleep 1000 & kill -9 -1; sleep 1000"], timeout=3)
    assert result.reason in (Reason.WALL_TIME, Reason.KILLED, Reason.SIGNALED)
    assert sb.run(["true"]).ok


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGPIPE])
def test_a_signal_of_its_own_is_signaled(sb, number):
    result = sb.run(["sh", "-c", f"kill -{int(number)} $$"])
    assert (result.reason, result.signal, result.returncode) == (Reason.SIGNALED, number, -number)


def test_exit_137_is_an_exit(sb):
    result = sb.run(["sh", "-c", "exit 137"])
    assert (result.reason, result.returncode, result.signal) == (Reason.EXITED, 137, None)


def test_cpu_time_counts_the_whole_tree(sb):
    spin = "import os\nfor _ in range(3): os.fork()\nwhile True: pass\n"
    result = sb.run(["python3", "-c", spin], cpu_time=0.5, timeout=60)
    assert result.reason is Reason.CPU_TIME
    assert result.usage.cpu_time >= 0.5


def test_a_sleeper_hits_the_wall_and_not_the_cpu_limit(sb):
    assert sb.run(["sleep", "1000"], cpu_time=0.5, timeout=0.7).reason is Reason.WALL_TIME


def test_usage_is_measured_or_none(sb):
    usage = sb.run(["python3", "-c", "x = bytearray(50_000_000); [i for i in range(1000000)]"]).usage
    assert usage.memory_peak > 50_000_000
    assert 0 < usage.user_time <= usage.cpu_time
    assert usage.wall_time > 0
    assert usage.pids_peak is None
    assert usage.io_read is None


def test_pass_fds_keep_their_numbers(sb, tmp_path):
    (tmp_path / "data").write_bytes(b"through a descriptor")
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    try:
        script = f"import os; print(os.read({fd}, 100).decode(), sorted(os.listdir('/proc/self/fd')))"
        result = sb.run(["python3", "-c", script], pass_fds=[fd], text=True)
    finally:
        os.close(fd)
    assert result.stdout.startswith("through a descriptor")
    assert f"'{fd}'" in result.stdout


def test_a_terminal_on_request(sb):
    script = "import os, sys; print(os.isatty(0), os.isatty(1), os.isatty(2), os.tcgetpgrp(0) == os.getpgrp())"
    result = sb.run(["python3", "-c", script], pty=True, text=True)
    assert result.stdout.strip() == "True True True True"
    assert sb.run(["python3", "-c", "import os; print(os.isatty(0))"], text=True).stdout == "False\n"


def test_shell_is_the_only_place_with_a_shell(sb):
    assert sb.shell("echo $((6 * 7)) | cat").stdout == b"42\n"
    assert sb.run(["echo", "$HOME", ";", "id"]).stdout == b"$HOME ; id\n"


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": float("nan")},
        {"timeout": -1},
        {"timeout": True},
        {"max_output": "12 apples"},
        {"on_overflow": "explode"},
        {"env": {"A=B": "c"}},
        {"env": {"A": "b\0"}},
        {"env": ["A"]},
        {"cwd": "a\0b"},
        {"input": b"x", "stdin": None},
        {"input": "text without text mode"},
        {"stdout": subprocess.STDOUT},
        {"pass_fds": [1]},
        {"cpu_time": -1},
        {"encoding": "no-such-codec"},
        {"pty": True, "stdout": None},
        {"user": 0},
    ],
    ids=str,
)
def test_wrong_arguments_are_spec_errors(sb, options):
    with pytest.raises(SpecError) as failure:
        sb.run(["true"], **options)
    assert isinstance(failure.value, ValueError)


def test_two_hundred_runs_from_fifty_threads_in_one_sandbox(sb):
    failures: list[object] = []

    def work(number: int) -> None:
        for turn in range(4):
            text = f"{number}-{turn}"
            result = sb.run(["sh", "-c", f"echo {text}; cat"], input=text.encode(), timeout=60)
            if result.stdout != f"{text}\n{text}".encode() or not result.ok:
                failures.append(result)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
