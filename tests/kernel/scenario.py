"""The observed process (see observer.py): warm up, report, wait for the word, call the library, report what changed."""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from typing import Any

_FUNCTION = "def scenario(sk, args, tmp):\n    pass\n"


def compile_body(code: str, name: str) -> Any:
    """The code as the body of a function, so that `return` gives a value."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    names: dict[str, Any] = {}
    exec(compile(_FUNCTION + body, f"<{name}>", "exec"), names)
    return names["scenario"]


def _call(function: Any, sandboxkit: Any, request: dict[str, Any]) -> tuple[Any, str]:
    try:
        return function(sandboxkit, request["arguments"], request["tmp"]), ""
    except BaseException:
        return None, traceback.format_exc()


def _main() -> None:
    report_fd, go_fd = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(report_fd, False)
    os.set_inheritable(go_fd, False)
    request = json.load(sys.stdin)
    import ctypes  # noqa: F401  (so that looking does not change what is seen)
    import select  # noqa: F401
    import socket  # noqa: F401
    import subprocess  # noqa: F401
    import threading  # noqa: F401

    import caller_state

    import sandboxkit

    if request["binary"]:
        from sandboxkit.runtime import launcher

        launcher.use_binary(request["binary"])
    run, warm = compile_body(request["code"], "scenario"), compile_body(request["warm"], "warm-up")
    with sandboxkit.Sandbox() as sandbox:
        sandbox.run(["/bin/true"])
    _, error = _call(warm, sandboxkit, request)
    gc.collect()
    if error:
        raise SystemExit(f"the warm-up failed: {error}")
    caller_state.capture()
    before = caller_state.capture()
    os.write(report_fd, b"ready\n")
    os.read(go_fd, 1)
    value, error = _call(run, sandboxkit, request)
    gc.collect()
    changed = caller_state.differences(before, caller_state.capture())
    os.write(report_fd, json.dumps({"value": value, "error": error, "caller": changed}).encode() + b"\n")
    os.read(go_fd, 1)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    _main()
