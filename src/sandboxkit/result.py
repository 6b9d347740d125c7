"""What happened to a run, and what a sandbox enforces: frozen values."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

import attrs

from sandboxkit.errors import CommandFailed, CommandTimeout


class Reason(str, enum.Enum):
    """Why the main process ended: the first limit that ended it, or its own doing."""

    EXITED = "exited"
    SIGNALED = "signaled"
    WALL_TIME = "wall_time"
    CPU_TIME = "cpu_time"
    MEMORY = "memory"
    OUTPUT = "output"
    SYSCALL = "syscall"
    KILLED = "killed"


@attrs.frozen(kw_only=True)
class Usage:
    """What a run used, its whole tree together: seconds and bytes. None is unknown, never zero.

    `memory_peak` is the resident size of the largest single process, from getrusage(2).
    """

    wall_time: float | None = None
    cpu_time: float | None = None
    user_time: float | None = None
    system_time: float | None = None
    memory_peak: int | None = None
    pids_peak: int | None = None
    io_read: int | None = None
    io_written: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None


@attrs.frozen
class Truncated:
    """Which streams were cut at `max_output`. False when none was."""

    stdout: bool = False
    stderr: bool = False

    def __bool__(self) -> bool:
        return self.stdout or self.stderr


@attrs.frozen(kw_only=True)
class Control:
    """One control: what enforces it (empty: nothing does), in detail, and whether it was asked for or is a default."""

    by: str
    detail: str
    asked: bool = False

    def __bool__(self) -> bool:
        return self.by != ""


class Enforced(Mapping[str, Control]):
    """Every control of a sandbox by name, with what enforces it or why nothing does."""

    def __init__(self, controls: Mapping[str, Control]) -> None:
        self._controls = dict(controls)

    def __getitem__(self, name: str) -> Control:
        return self._controls[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._controls)

    def __len__(self) -> int:
        return len(self._controls)

    def __hash__(self) -> int:
        return hash(frozenset(self._controls.items()))

    def __repr__(self) -> str:
        return f"Enforced({self._controls!r})"

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the controls that nothing enforces."""
        return tuple(name for name, control in self._controls.items() if not control)


@attrs.frozen(kw_only=True)
class Result:
    """A finished run. The names that `subprocess.CompletedProcess` has mean what they mean there.

    >>> from sandboxkit import Sandbox
    >>> with Sandbox() as sb:
    ...     result = sb.run(["sh", "-c", "exit 3"])
    >>> result.returncode, result.reason.value, result.ok
    (3, 'exited', False)
    """

    args: object
    returncode: int
    stdout: bytes | str | None
    stderr: bytes | str | None
    reason: Reason
    signal: int | None
    limits_hit: frozenset[str]
    usage: Usage
    truncated: Truncated
    enforced: Enforced = attrs.field(repr=False)

    @property
    def ok(self) -> bool:
        """The program ended by itself with status 0."""
        return self.reason is Reason.EXITED and self.returncode == 0

    def check(self) -> Result:
        """This result if it is ok; raises `CommandFailed`, for a time limit `CommandTimeout`, if not."""
        if self.ok:
            return self
        if self.reason in (Reason.WALL_TIME, Reason.CPU_TIME):
            raise CommandTimeout(self)
        raise CommandFailed(self)
