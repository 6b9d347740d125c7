"""What this host can do, found out by doing it, with the reason and the fix where it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import attrs

from sandboxkit.runtime import native
from sandboxkit.runtime.cgroup_layout import current_layout
from sandboxkit.runtime.host import current_authority

_FLOOR = "a kernel from 5.12 on, and no container whose seccomp filter refuses it"
_SYSCALLS = (
    ("openat2", native.lib.SBX_FEATURE_OPENAT2, True),
    ("mount_setattr", native.lib.SBX_FEATURE_MOUNT_SETATTR, True),
    ("close_range", native.lib.SBX_FEATURE_CLOSE_RANGE, True),
    ("pidfd_open", native.lib.SBX_FEATURE_PIDFD, True),
    ("clone3", native.lib.SBX_FEATURE_CLONE3, False),
    ("seccomp", native.lib.SBX_FEATURE_SECCOMP, False),
)


@attrs.frozen(kw_only=True)
class Finding:
    """One thing this host can do or cannot. `needed`: without it there is no sandbox at all."""

    group: str
    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = False


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def system_calls() -> Iterator[Finding]:
    """Those that are needed or will be used."""
    for name, feature, needed in _SYSCALLS:
        result = native.lib.sbx_probe(feature)
        detail = "answers" if result == 0 else os.strerror(-result)
        yield Finding(group="kernel", name=name, ok=result == 0, detail=detail, fix=_FLOOR, needed=needed)
    abi = native.lib.sbx_probe(native.lib.SBX_FEATURE_LANDLOCK)
    yield Finding(
        group="kernel", name="landlock", ok=abi > 0,
        detail=f"ABI {abi}" if abi > 0 else os.strerror(-abi),
        fix="a kernel built with CONFIG_SECURITY_LANDLOCK and `landlock` in its lsm= list; not used by this version",
    )  # fmt: skip


def user_namespaces() -> Iterator[Finding]:
    """The switches that forbid them to ordinary users."""
    for path, blocked, fix in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
            "an AppArmor profile for this interpreter with `userns,`, or "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ):  # fmt: skip
        value = _read(path)
        name = path.removeprefix("/proc/sys/").replace("/", ".")
        detail = "this kernel has no such switch" if value is None else f"is {value}"
        yield Finding(group="user namespaces", name=name, ok=value != blocked, detail=detail, fix=fix)
    authority = current_authority()
    if not authority.root:
        yield Finding(
            group="user namespaces", name="subordinate ids", ok=authority.subordinate is not None,
            detail="65536 of each" if authority.subordinate else _why_no_subordinate(),
            fix="install `uidmap` and give this user 65536 ids in /etc/subuid and /etc/subgid (usermod --add-subuids)",
        )  # fmt: skip


def _why_no_subordinate() -> str:
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return "newuidmap and newgidmap are not installed; a single id is mapped"
    return "none are granted to this user; a single id is mapped"


def cgroups() -> Iterator[Finding]:
    """Where each controller is, or why it is out of reach."""
    layout = current_layout()
    yield Finding(group="cgroups", name="mode", ok=layout.mode != "none", detail=layout.mode, fix="mount cgroup2")
    for name in sorted({*layout.controllers, *layout.reasons}):
        if name in layout.controllers:
            version, directory = layout.controllers[name]
            yield Finding(group="cgroups", name=name, ok=True, detail=f"v{version}, {directory}")
        else:
            yield Finding(
                group="cgroups", name=name, ok=False, detail=layout.reasons[name],
                fix="run as root, or in a delegated cgroup: systemd-run --user --scope -p Delegate=yes COMMAND",
            )  # fmt: skip


def tried(group: str, name: str, attempt: Callable[[], str], *, needed: bool = False) -> Finding:
    """A finding from an attempt that returns a detail or raises OSError with what went wrong."""
    try:
        return Finding(group=group, name=name, ok=True, detail=attempt(), needed=needed)
    except OSError as error:
        fix = getattr(error, "fix", None) or getattr(error, "hint", None) or ""
        return Finding(group=group, name=name, ok=False, detail=str(error), fix=fix, needed=needed)
