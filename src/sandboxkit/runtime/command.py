"""The arguments of `run` and `popen`, checked and turned into what a keeper is sent."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from sandboxkit.errors import EmptyCommandError, SpecError
from sandboxkit.runtime import native
from sandboxkit.spec import User
from sandboxkit.spec.sandbox import check_environment
from sandboxkit.spec.sizes import parse_seconds

INLINE_BODY = 60000
_FALLBACK_PATH = "/usr/local/bin:/usr/bin:/bin"


@attrs.frozen(kw_only=True)
class Defaults:
    """What a sandbox gives to each of its runs."""

    env: Mapping[str, str]
    cwd: str
    rlimits: tuple[tuple[int, int, int], ...]
    user: User


@attrs.frozen(kw_only=True)
class Command:
    """One command, ready to be sent: bytes throughout, nothing left to decide."""

    args: tuple[bytes, ...]
    candidates: tuple[bytes, ...]
    cwd: bytes
    env: tuple[bytes, ...]
    rlimits: tuple[tuple[int, int, int], ...]
    pass_fds: tuple[int, ...] = ()
    cpu_time: float | None = None
    terminal: bool = False

    def encode(self, flags: int) -> tuple[bytes, int]:
        """The record to send, and a memfd of its body (owned by the caller) if that is large, else -1."""
        limits = native.ffi.new(
            "struct sbx_rlimit[]",
            [{"resource": number, "soft": soft, "hard": hard} for number, soft, hard in self.rlimits],
        )
        body = b"".join(
            (
                bytes(native.ffi.buffer(limits)),
                b"".join(fd.to_bytes(4, "little") for fd in self.pass_fds),
                b"".join(text + b"\0" for text in (self.cwd, *self.candidates, *self.args, *self.env)),
            )
        )
        memfd = -1
        if len(body) > INLINE_BODY:
            memfd = native.sealed_memfd("sandboxkit-run", body)
            flags |= native.lib.SBX_RUN_BODY_FD
        header = native.record(
            "struct sbx_run",
            kind=native.lib.SBX_RUN,
            flags=flags | (native.lib.SBX_RUN_TERMINAL if self.terminal else 0),
            body_len=len(body),
            rlimit_count=len(self.rlimits),
            pass_count=len(self.pass_fds),
            candidate_count=len(self.candidates),
            argc=len(self.args),
            envc=len(self.env),
            cpu_limit_ns=0 if self.cpu_time is None else max(1, round(self.cpu_time * 1e9)),
        )
        return (header, memfd) if memfd >= 0 else (header + body, -1)


def _word(value: Any, argument: str) -> bytes:
    try:
        word = os.fsencode(value)
    except TypeError:
        raise SpecError(argument, value, "text, bytes or a path") from None
    if b"\0" in word:
        raise SpecError(argument, value, "no NUL: embedded null byte")
    return word


def _words(args: Any) -> tuple[bytes, ...]:
    if isinstance(args, (str, bytes, os.PathLike)):
        return (_word(args, "args"),)
    if not isinstance(args, Sequence):
        raise SpecError("args", args, "a list of words")
    if not args:
        raise EmptyCommandError("args", args, "a command of at least one word")
    return tuple(_word(word, "args") for word in args)


def _candidates(program: bytes, path: str) -> tuple[bytes, ...]:
    """Where execvpe would look, in its order."""
    if b"/" in program:
        return (program,)
    return tuple(os.path.join(os.fsencode(directory), program) for directory in path.split(":"))


def _environment(base: Mapping[str, str], env: Any) -> dict[str, str]:
    merged = dict(base)
    for name, value in (check_environment(env) or {}).items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def _cwd(base: str, cwd: Any) -> bytes:
    return os.path.join(os.fsencode(base), _word(cwd, "cwd")) if cwd is not None else os.fsencode(base)


def _cpu_backstop(
    rlimits: tuple[tuple[int, int, int], ...], cpu_time: float | None
) -> tuple[tuple[int, int, int], ...]:
    """The kernel's own limit, a second late and for each process by itself, in case nobody is left to look."""
    if cpu_time is None or math.isinf(cpu_time):
        return rlimits
    seconds = math.ceil(cpu_time) + 1
    return (
        *(limit for limit in rlimits if limit[0] != resource.RLIMIT_CPU),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
    )


def _pass_fds(fds: Any) -> tuple[int, ...]:
    numbers = tuple(fds)
    for fd in numbers:
        if not isinstance(fd, int) or isinstance(fd, bool) or fd < 3:
            raise SpecError("pass_fds", fd, "open file descriptors from 3 on")
    if len(set(numbers)) != len(numbers) or len(numbers) > 200:
        raise SpecError("pass_fds", fds, "at most 200 different file descriptors")
    return numbers


def make_command(
    defaults: Defaults, args: Any, *, env: Any, cwd: Any, cpu_time: Any, pass_fds: Any, terminal: bool
) -> Command:
    """Raises `SpecError` naming the argument that is wrong."""
    words = _words(args)
    merged = _environment(defaults.env, env)
    limit = None if cpu_time is None else parse_seconds(cpu_time, "cpu_time")
    if limit is not None and math.isinf(limit):
        limit = None
    return Command(
        args=words,
        candidates=_candidates(words[0], merged.get("PATH", _FALLBACK_PATH)),
        cwd=_cwd(defaults.cwd, cwd),
        env=tuple(_word(f"{name}={value}", "env") for name, value in merged.items()),
        rlimits=_cpu_backstop(defaults.rlimits, limit),
        pass_fds=_pass_fds(pass_fds),
        cpu_time=limit,
        terminal=terminal,
    )
