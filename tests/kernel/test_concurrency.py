"""Many threads, many sandboxes, forks of the caller, multiprocessing in all its ways."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings

import pytest

from sandboxkit import Sandbox, SandboxClosedError


def test_two_hundred_runs_from_fifty_threads_in_many_sandboxes():
    failures: list[object] = []

    def work(number: int) -> None:
        try:
            with Sandbox(hostname=f"box-{number}") as sandbox:
                for _ in range(4):
                    result = sandbox.run(["uname", "-n"], timeout=120)
                    if result.stdout != f"box-{number}\n".encode():
                        failures.append(result)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_opened_in_a_thread_that_ends_and_used_in_another():
    opened: list[Sandbox] = []
    thread = threading.Thread(target=lambda: opened.append(Sandbox().open()))
    thread.start()
    thread.join()
    assert opened[0].run(["true"]).ok
    opened[0].close()


def in_child(function) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_of_the_caller_has_no_part_in_its_sandboxes():
    with Sandbox() as sandbox:

        def child() -> int:
            try:
                sandbox.run(["true"])
            except SandboxClosedError:
                sandbox.close()
                with Sandbox() as own:
                    return 42 if own.run(["true"]).ok else 2
            return 3

        assert in_child(child) == 42
        assert sandbox.run(["true"]).ok


def one_run(number: int) -> bytes:
    with Sandbox() as sandbox:
        return sandbox.run(["echo", str(number)]).stdout


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method):
    with Sandbox() as sandbox, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context(method).Pool(3) as pool:
            assert pool.map(one_run, range(6)) == [f"{number}\n".encode() for number in range(6)]
        assert sandbox.run(["true"]).ok
