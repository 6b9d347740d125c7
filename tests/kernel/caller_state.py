"""Everything about this process that a library call may not change: what Invariant 1 says of the caller."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading

_PR_GET_DUMPABLE, _PR_GET_CHILD_SUBREAPER = 3, 37
_STATUS = ("SigBlk", "SigIgn", "SigCgt", "Umask", "NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Groups", "Uid", "Gid")


def _status() -> dict[str, str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    return {name: lines.get(name, "").strip() for name in _STATUS}


def open_fds() -> dict[str, str]:
    """fd -> what it refers to, without the one used for looking."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


def _cwd() -> str:
    try:
        return os.readlink("/proc/self/cwd")
    except OSError as error:
        return f"errno {error.errno}"


def capture() -> dict[str, object]:
    """The state as plain JSON values, one entry for each thing that has to stay as it was."""
    libc = ctypes.CDLL(None)
    state: dict[str, object] = {f"fd {fd}": target for fd, target in open_fds().items()}
    state |= {f"status {name}": value for name, value in _status().items()}
    state |= {f"handler {number}": str(signal.getsignal(number)) for number in range(1, signal.NSIG)
              if number not in (32, 33)}
    state |= {f"rlimit {name}": list(resource.getrlimit(getattr(resource, name)))
              for name in dir(resource) if name.startswith("RLIMIT_")}
    state |= {f"env {name}": value for name, value in os.environ.items()}
    state["cwd"] = _cwd()
    state["dumpable"] = libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    subreaper = ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(subreaper), 0, 0, 0)
    state["subreaper"] = subreaper.value
    state["session"] = [os.getsid(0), os.getpgid(0)]
    state["timers"] = [list(signal.getitimer(which)) for which in
                       (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)]
    state["threads"] = sorted(thread.name for thread in threading.enumerate())
    state["tasks"] = len(os.listdir("/proc/self/task"))
    state["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
    return state


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """One line for each entry that is not what it was."""
    names = sorted(before.keys() | after.keys())
    return [f"{name}: {before.get(name)!r} -> {after.get(name)!r}" for name in names
            if before.get(name) != after.get(name)]
