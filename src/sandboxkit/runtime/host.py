"""What this host and this process are: looked up once per process, given to the pure planning code as values."""

from __future__ import annotations

import functools
import glob
import os
import pwd
import resource
import shutil
import sys

import attrs

from sandboxkit.limits_plan import LimitHost
from sandboxkit.plan import HostFacts
from sandboxkit.runtime.cgroup_layout import current_layout
from sandboxkit.spec import Rlimits

_TOP_LEVEL = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Without these, programs below /usr do not start or lose what every installation has: symlinks that Debian's
# alternatives keep in /etc, the linker's cache, certificates, the configuration that Java links to.
_ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/java-*-openjdk")
ID_COUNT = 65536


@attrs.frozen(kw_only=True)
class Authority:
    """On whose authority the launcher makes namespaces: its arguments."""

    root: bool
    uid: int
    gid: int
    subordinate: tuple[int, int] | None  # first subordinate uid and gid, 65536 of each

    def arguments(self) -> list[str]:
        if self.root:
            return ["root"]
        arguments = ["user", str(self.uid), str(self.gid)]
        if self.subordinate is not None:
            uids, gids = self.subordinate
            arguments += [str(uids), str(ID_COUNT), str(gids), str(ID_COUNT)]
        return arguments


def _subordinate_start(path: str, uid: int, name: str) -> int | None:
    """The first id of a range of at least 65536 that subuid(5) or subgid(5) grants this user."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                owner, _, rest = line.strip().partition(":")
                start, _, count = rest.partition(":")
                if owner in (name, str(uid)) and start.isdigit() and count.isdigit() and int(count) >= ID_COUNT:
                    return int(start)
    except OSError:
        return None
    return None


def _subordinate(uid: int) -> tuple[int, int] | None:
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    uids = _subordinate_start("/etc/subuid", uid, name)
    gids = _subordinate_start("/etc/subgid", uid, name)
    return None if uids is None or gids is None else (uids, gids)


def current_authority() -> Authority:
    """Who we are now; root here is the effective user id 0."""
    uid, gid = os.geteuid(), os.getegid()
    return Authority(root=uid == 0, uid=uid, gid=gid, subordinate=None if uid == 0 else _subordinate(uid))


def _interpreter_prefixes() -> tuple[str, ...]:
    """The directories that hold this interpreter and its libraries, unless /usr, which is there anyway, holds them."""
    executable = os.path.dirname(os.path.realpath(sys.executable)) if sys.executable else ""
    candidates = {
        os.path.realpath(prefix)
        for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.dirname(executable))
        if prefix
    } | {os.path.abspath(sys.prefix)}
    outside = {
        path for path in candidates if path != "/" and not f"{path}/".startswith("/usr/") and os.path.isdir(path)
    }
    return tuple(sorted(p for p in outside if not any(p.startswith(f"{other}/") for other in outside)))


def interpreter_path() -> tuple[str, ...]:
    """Directories to put before PATH so that `python3` is the interpreter that is running."""
    directory = os.path.dirname(os.path.abspath(sys.executable)) if sys.executable else ""
    return () if directory in ("", "/usr/bin", "/bin") else (directory,)


@functools.cache
def host_facts(authority: Authority) -> HostFacts:
    """Looked up once: where this process's files live does not change under it."""
    links = tuple((path, os.readlink(path)) for path in _TOP_LEVEL if os.path.islink(path))
    return HostFacts(
        root=authority.root,
        several_ids=authority.root or authority.subordinate is not None,
        usr_links=links,
        usr_dirs=tuple(path for path in _TOP_LEVEL if os.path.isdir(path) and not os.path.islink(path)),
        prefixes=_interpreter_prefixes(),
        etc=tuple(path for pattern in _ETC for path in sorted(glob.glob(pattern))),
        resolver=os.path.exists("/etc/resolv.conf"),
    )


def rlimits_for(wanted: Rlimits) -> tuple[tuple[int, int, int], ...]:
    """The limits to set. A default that is above this process's own hard limit comes down to it: raising it takes a
    privilege. One that was asked for stays as it is, and fails if it cannot be had."""
    default = {number: (soft, hard) for number, soft, hard in Rlimits().items()}
    limits = []
    for number, soft, hard in wanted.items():
        if default.get(number) == (soft, hard):
            ceiling = resource.getrlimit(number)[1]
            if ceiling != resource.RLIM_INFINITY:
                soft, hard = min(soft, ceiling), min(hard, ceiling)
        limits.append((number, soft, hard))
    return tuple(limits)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def limit_host(authority: Authority) -> LimitHost:
    """Where limits can be set right now; not cached, the process may be moved to another cgroup."""
    layout = current_layout()
    controllers = dict(layout.controllers)
    memory, cpuset = controllers.get("memory"), controllers.get("cpuset")
    swap_file = (
        ""
        if memory is None
        else os.path.join(memory[1], "memory.memsw.limit_in_bytes" if memory[0] == 1 else "cgroup.controllers")
    )
    return LimitHost(
        controllers=controllers,
        reasons=dict(layout.reasons),
        swap_accounting=bool(swap_file) and os.path.exists(swap_file),
        cpuset_mems="" if cpuset is None or cpuset[0] != 1 else _read(os.path.join(cpuset[1], "cpuset.mems")),
        nproc_counts=not authority.root,
    )
