"""Runs a scenario in a process of its own and says what it left behind: Invariant 1 of the design, checked from outside.

Three processes: the test asks (`observe`), the observer (this file as a program: a subreaper, so that whatever gets
orphaned becomes its child) looks at the host, the scenario (`scenario.py`) calls the library. The scenario first warms
up, so that what lives as long as the process does (the launcher, its socket, the cache) is there in both pictures.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

HERE = Path(__file__).resolve().parent
_PR_SET_CHILD_SUBREAPER = 36
SETTLE_S = 5.0  # how long asynchronous teardown may take before what is left counts as left
WATCHDOG_S = 240.0


@dataclass(frozen=True)
class Report:
    """What the observer saw."""

    returncode: int  # of the scenario process, as subprocess gives it
    value: Any  # what the scenario returned, through JSON
    error: str  # the traceback it ended with, if it did
    caller: list[str] = field(default_factory=list)  # what changed in the scenario process
    alive: list[str] = field(default_factory=list)  # left on the host while that process still lived
    final: list[str] = field(default_factory=list)  # left on the host, or still running, after its end
    stderr: str = ""

    def check_clean(self) -> None:
        """Invariant 1."""
        assert not self.caller, f"the caller is not as it was: {self.caller}\n{self.error}{self.stderr}"
        assert not self.alive, f"left while the caller lives: {self.alive}\n{self.error}{self.stderr}"
        assert not self.final, f"left after the caller's end: {self.final}\n{self.error}{self.stderr}"


def observe(code: str, tmp_path: Path, *, binary: str | None = None, warm: str = "", killed: bool = False,
            wrapper: tuple[str, ...] = (), **arguments: Any) -> Report:
    """Run `code` (the body of a function; `sk` is sandboxkit, `args` the keyword arguments, `tmp` a directory).

    binary: launcher to use instead of the installed one. warm: code to run before the first picture is taken.
    killed: the scenario is expected to be SIGKILLed; otherwise its death by a signal fails here. wrapper: a command
    that the scenario process is started through.
    """
    for name in ("tmp", "cache", "home"):
        (tmp_path / name).mkdir(exist_ok=True)
    request = {"code": dedent(code), "warm": dedent(warm), "binary": binary, "arguments": arguments,
               "tmp": str(tmp_path), "wrapper": list(wrapper)}
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "cache"),
                                "HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, __file__], input=json.dumps(request), capture_output=True, text=True,
                          timeout=WATCHDOG_S, env=environment, check=False)
    assert done.returncode == 0, f"the observer itself failed: {done.stderr}"
    report = Report(**json.loads(done.stdout))
    if killed:
        assert report.returncode == -signal.SIGKILL, f"not killed but {report.returncode}: {report.error}{report.stderr}"
    else:
        assert report.returncode == 0, f"the scenario ended with {report.returncode}: {report.error}{report.stderr}"
    return report


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class _Observer:
    def __init__(self, request: dict[str, Any]) -> None:
        self.directories = [f"{request['tmp']}/{name}" for name in ("tmp", "cache", "home")]
        self.scenario: subprocess.Popen[str] | None = None

    def picture(self) -> frozenset[str]:
        from host_state import descendants, snapshot

        tree = descendants(os.getpid())
        running = frozenset(f"process: {pid} {state if state == 'Z' else ''} {what}"
                            for pid, (_, state, what) in tree.items())
        return snapshot(self.directories) | running

    def settle(self, before: frozenset[str], reap: bool) -> list[str]:
        """What is there and was not before, at every look until the time for settling is over."""
        deadline = time.monotonic() + SETTLE_S
        new: frozenset[str] | None = None
        while True:
            if reap:
                _reap()
            now = self.picture() - before
            new = now if new is None else new & now
            if not new or time.monotonic() > deadline:
                return sorted(new)
            time.sleep(0.02)


def _main() -> None:
    from host_state import snapshot  # noqa: F401  (imported before the first picture)

    request = json.load(sys.stdin)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    observer = _Observer(request)
    base = observer.picture()
    to_read, to_write = os.pipe()
    go_read, go_write = os.pipe()
    process = subprocess.Popen(
        [*request["wrapper"], sys.executable, str(HERE / "scenario.py"), str(to_write), str(go_read)],
        pass_fds=(to_write, go_read), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True)
    os.close(to_write)
    os.close(go_read)
    lines = open(to_read, encoding="utf-8")  # noqa: SIM115
    assert process.stdin is not None and process.stderr is not None
    try:
        process.stdin.write(json.dumps(request))
        process.stdin.close()
    except BrokenPipeError:
        pass
    answer: dict[str, Any] = {"value": None, "error": "", "caller": []}
    alive: list[str] = []
    if lines.readline().strip() == "ready":
        before = observer.picture()
        os.write(go_write, b"g")
        if line := lines.readline():
            answer = json.loads(line)
            alive = observer.settle(before, reap=False)
    os.close(go_write)
    # Only the scenario's stderr decides when it is over: a leaked process that holds it must not hang the observer.
    process.wait()
    final = observer.settle(base, reap=True)
    os.set_blocking(process.stderr.fileno(), False)
    try:
        stderr = os.read(process.stderr.fileno(), 65536).decode(errors="replace")
    except BlockingIOError:
        stderr = ""
    cache = [line for line in final if "/cache/" in line and line.startswith("file: ")]
    json.dump(answer | {"alive": alive, "final": sorted(set(final) - set(cache)), "returncode": process.returncode,
                        "stderr": stderr}, sys.stdout)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    _main()
