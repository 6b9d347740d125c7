"""Everything that can go wrong, as exceptions.

    SandboxError                      .code: a stable slug
    ├── SpecError                     the request is wrong                        also ValueError
    │   └── EmptyCommandError         there is nothing to run                     also IndexError, as in subprocess
    ├── UnsupportedError              this host cannot                            also OSError
    ├── LaunchError                   a step of the set-up failed                 also OSError
    │   └── one class for each builtin OSError subclass that subprocess raises
    ├── CommandFailed                 the program failed, and check was asked for also CalledProcessError
    │   └── CommandTimeout            ... because of its time limit               also TimeoutExpired
    ├── SandboxClosedError            used before it is open or after it closed   also RuntimeError
    └── ImageError                    a root or archive cannot be used            also OSError

A program's own fate is a result, never one of these, unless `check=True` asks for it.
"""

from __future__ import annotations

import errno as _errno
import os
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandboxkit.result import Result

_USERNS_FIX = (
    "unprivileged user namespaces are off: `sysctl -w kernel.unprivileged_userns_clone=1` (Debian), "
    "`sysctl -w user.max_user_namespaces=15000`, or, on Ubuntu 23.10 and later, an AppArmor profile for this "
    "interpreter with `userns,` or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`; "
    "`python -m sandboxkit doctor` says which"
)
_COUNT_FIX = "a limit on namespaces is reached: see `sysctl user` (user.max_*_namespaces)"

# (step, errno) -> what to do, for pairs whose plain text misleads. errno 0 stands for any.
_HINTS: dict[tuple[str, int], str] = {
    ("authority_clone", _errno.EPERM): _USERNS_FIX,
    ("authority_clone", _errno.ENOSPC): _USERNS_FIX,
    ("authority_clone", _errno.EUSERS): _COUNT_FIX,
    ("authority_uid_map", _errno.EPERM): _USERNS_FIX,
    ("authority_gid_map", _errno.EPERM): _USERNS_FIX,
    ("userns_clone", _errno.EPERM): _USERNS_FIX,
    ("userns_clone", _errno.ENOSPC): _COUNT_FIX,
    ("userns_uid_map", _errno.EPERM): "the id range is not ours to map: run outside of a container with remapped ids",
    ("clone", _errno.EPERM): "creating namespaces is not allowed here: a container's seccomp filter, or AppArmor",
    ("clone", _errno.ENOSPC): _COUNT_FIX,
    ("clone", _errno.EAGAIN): "too many processes for this user or cgroup: see RLIMIT_NPROC and pids.max",
    ("id_range", _errno.EUSERS): "every id range is in use: close other sandboxes first",
    ("cgroup_create", 0): "the cgroup is not delegated to this user: `python -m sandboxkit doctor` says how to",
    ("cgroup_limit", _errno.EINVAL): "the kernel refuses this value",
    ("cgroup_limit", _errno.ENOENT): "the controller is not enabled in this cgroup",
    ("proc", _errno.EPERM): "another mount covers part of /proc here (a container does that): no new procfs is allowed",
    ("root", _errno.EINVAL): "overlayfs refuses this combination: see the kernel log for its reason",
    ("root", _errno.E2BIG): "too many layers for one mount",
    ("root", _errno.ENODEV): "this kernel has no overlayfs: load the module `overlay`",
    ("bind", _errno.ENOSPC): "too many mounts: see `sysctl fs.mount-max`",
    ("tmpfs", _errno.ENOSPC): "too many mounts: see `sysctl fs.mount-max`",
    ("bind_source", _errno.ESTALE): "the path no longer leads to what it led to when the sandbox was opened",
    ("target", _errno.EROFS): "the place to mount on does not exist, and the file system there is read-only",
    ("target", _errno.ELOOP): "the path to mount on goes through a link that is not followed",
    ("attest", 0): "a control did not hold when it was read back; nothing was run",
    ("pdeathsig", _errno.ESRCH): "the launcher ended during the set-up",
    ("cwd", _errno.ENOENT): "the working directory does not exist inside the sandbox",
    (
        "exec",
        _errno.ENOENT,
    ): "no such program inside the sandbox, or its interpreter (first line, ELF loader) is missing there",
    ("exec", _errno.EACCES): "not executable for the sandbox's user: no execute bit, a directory, or a noexec mount",
    ("exec", _errno.ENOEXEC): "neither an executable format nor a script with a `#!` line",
    ("exec", _errno.E2BIG): "arguments and environment are larger than the kernel takes",
    ("launcher_start", 0): "the launcher process could not be started or ended at once",
}


class SandboxError(Exception):
    """The root of all errors raised here. `code` is a stable slug for programs to look at."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class SpecError(SandboxError, ValueError):
    """The request is wrong; nothing was created. `argument`, `value` and `expected` say how."""

    def __init__(self, argument: str, value: object, expected: str) -> None:
        super().__init__("spec", f"{argument}: expected {expected}, got {value!r}")
        self.argument = argument
        self.value = value
        self.expected = expected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.argument, self.value, self.expected)


class EmptyCommandError(SpecError, IndexError):
    """A command of no words; subprocess raises IndexError for it."""


class UnsupportedError(SandboxError, OSError):
    """This host cannot do what was asked: `feature`, what was `tried`, and the `fix`."""

    def __init__(self, feature: str, *, tried: str, fix: str) -> None:
        SandboxError.__init__(self, "unsupported", f"{feature} is not available here. Tried: {tried}. Fix: {fix}.")
        self.errno = _errno.EOPNOTSUPP
        self.feature = feature
        self.tried = tried
        self.fix = fix

    __str__ = SandboxError.__str__

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_unsupported, (self.feature, self.tried, self.fix)


def _rebuild_unsupported(feature: str, tried: str, fix: str) -> UnsupportedError:
    return UnsupportedError(feature, tried=tried, fix=fix)


class LaunchError(SandboxError, OSError):
    """A step of the set-up, or of the start of a command, failed; what had been made is gone again.

    `step` is its name (docs/errors.md lists them), `errno` and `strerror` the kernel's word, `path` what it was about,
    `hint` what to do, `index` which of the plan's entries it was, or -1.
    """

    def __init__(
        self, step: str, errno: int, path: str | None = None, hint: str | None = None, index: int = -1
    ) -> None:
        reason = os.strerror(errno) if errno else "no answer"
        about = f" ({path})" if path else ""
        SandboxError.__init__(self, "launch", f"step {step} failed{about}: {reason}" + (f": {hint}" if hint else ""))
        self.step = step
        self.errno = errno
        self.strerror = reason
        self.filename = path
        self.path = path
        self.hint = hint
        self.index = index

    __str__ = SandboxError.__str__

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.errno, self.path, self.hint, self.index)


class LaunchNotFoundError(LaunchError, FileNotFoundError):
    """ENOENT: the program, its interpreter, or the working directory."""


class LaunchPermissionError(LaunchError, PermissionError):
    """EACCES or EPERM."""


class LaunchNotADirectoryError(LaunchError, NotADirectoryError):
    """ENOTDIR."""


class LaunchIsADirectoryError(LaunchError, IsADirectoryError):
    """EISDIR."""


_LAUNCH_CLASSES = {
    _errno.ENOENT: LaunchNotFoundError,
    _errno.EACCES: LaunchPermissionError,
    _errno.EPERM: LaunchPermissionError,
    _errno.ENOTDIR: LaunchNotADirectoryError,
    _errno.EISDIR: LaunchIsADirectoryError,
}
# Unprivileged user namespaces that are forbidden are not a failed step but a host that cannot.
_UNSUPPORTED_STEPS = {"authority_clone", "authority_uid_map", "authority_gid_map"}


def launch_error(
    step: str, errno: int, path: str | None = None, index: int = -1, detail: str | None = None
) -> LaunchError | UnsupportedError:
    """The exception for a failed step: its class, text and hint."""
    hint = _HINTS.get((step, errno)) or _HINTS.get((step, 0))
    if detail is not None:
        hint = f"{detail}; {hint}" if hint else detail
    if step in _UNSUPPORTED_STEPS:
        return UnsupportedError(
            "an unprivileged user namespace", tried=f"step {step}: {os.strerror(errno)}", fix=hint or _USERNS_FIX
        )
    return _LAUNCH_CLASSES.get(errno, LaunchError)(step, errno, path, hint, index)


class CommandFailed(SandboxError, subprocess.CalledProcessError):
    """The program failed and `check=True` was given. `.result` is all of it."""

    def __init__(self, result: Result) -> None:
        text = f"command {result.args!r} ended with {result.returncode} ({result.reason.value})"
        SandboxError.__init__(self, "command_failed", text)
        self.result = result
        self.returncode = result.returncode
        self.cmd = result.args
        self.output = result.stdout
        self.stderr = result.stderr

    __str__ = SandboxError.__str__

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,)


class CommandTimeout(CommandFailed, subprocess.TimeoutExpired):
    """The program ran into its time limit and `check=True` was given."""

    def __init__(self, result: Result) -> None:
        CommandFailed.__init__(self, result)
        self.timeout = result.usage.wall_time if result.usage.wall_time is not None else 0.0

    __str__ = SandboxError.__str__


class SandboxClosedError(SandboxError, RuntimeError):
    """The sandbox is not open, or not this process's."""

    def __init__(self, message: str) -> None:
        super().__init__("closed", message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message,)


class ImageError(SandboxError, OSError):
    """A root directory, an archive or a layer cannot be used. `path` names it, `member` the entry inside it."""

    def __init__(self, message: str, *, path: str | None = None, member: str | None = None, errno: int = 0) -> None:
        about = "".join(f" [{part}]" for part in (path, member) if part)
        SandboxError.__init__(self, "image", message + about)
        self.errno = errno or _errno.EINVAL
        self.filename = path
        self.path = path
        self.member = member
        self.reason = message

    __str__ = SandboxError.__str__

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_image, (self.reason, self.path, self.member, self.errno)


def _rebuild_image(message: str, path: str | None, member: str | None, errno: int) -> ImageError:
    return ImageError(message, path=path, member=member, errno=errno)
