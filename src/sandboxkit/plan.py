"""From a spec to a plan: what the launcher and init will do, step by step. Pure: equal input, equal plan.

Everything the host decides comes in as `HostFacts`; what has to be looked up for one sandbox (unpacked roots, what a
bind source is) comes in as `Sources`. `sandboxkit.runtime.encode` turns a plan into the bytes that C reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from sandboxkit.errors import UnsupportedError
from sandboxkit.limits_plan import LimitsPlan
from sandboxkit.spec import Bind, File, SandboxSpec, Symlink, Tmpfs

KIB, MIB = 1024, 1024 * 1024

# DESIGN §3: sizes of the writable places every sandbox has.
SCRATCH_SIZE, SCRATCH_INODES, SHM_SIZE = 256 * MIB, 16384, 64 * MIB
# The tmpfs that carries the skeleton of the host view, /dev and the like: directories, links and small files only.
SKELETON_SIZE, SKELETON_INODES = 16 * MIB, 8192
DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


@attrs.frozen(kw_only=True)
class HostFacts:
    """What the plan needs to know of this host and this process."""

    root: bool  # the caller is host root
    several_ids: bool  # more than one id can be mapped: root, or an ordinary user with subordinate ids
    usr_links: tuple[tuple[str, str], ...]  # /bin -> usr/bin and the like, on a merged-usr host
    usr_dirs: tuple[str, ...]  # the same as real directories, on hosts that have them
    prefixes: tuple[str, ...]  # where the running interpreter lives, outside /usr
    etc: tuple[str, ...]  # files and directories of /etc that programs from /usr cannot do without
    resolver: bool  # /etc/resolv.conf exists


@attrs.frozen(kw_only=True)
class Sources:
    """What was found at the paths a spec names, when the sandbox was opened."""

    layers: tuple[str, ...] = ()  # directories, bottom first
    identity: Mapping[str, tuple[int, int]] = attrs.field(factory=dict)  # bind source -> (st_dev, st_ino)


@attrs.frozen(kw_only=True)
class Op:
    """One file system operation; the kinds and fields are those of `struct sbx_op` in abi.h."""

    kind: str
    source: str = ""
    target: str = ""
    data: bytes = b""
    readonly: bool = False
    recursive: bool = False
    device: bool = False
    idmap: bool = False
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    inodes: int = 0
    identity: tuple[int, int] = (0, 0)


@attrs.frozen(kw_only=True)
class Plan:
    """What `struct sbx_plan` says, as values."""

    namespaces: frozenset[str]
    joins: tuple[str, ...]
    loopback: bool
    time_offsets: tuple[int, int] | None  # nanoseconds: monotonic, boottime
    uid: int
    gid: int
    groups: tuple[int, ...]
    hostname: str
    ops: tuple[Op, ...]
    limits: LimitsPlan


def compile_plan(spec: SandboxSpec, host: HostFacts, sources: Sources, limits: LimitsPlan) -> Plan:
    """The plan for one sandbox. Raises `UnsupportedError` for what this kind of caller cannot have."""
    created = frozenset(spec.namespaces.new)
    joined = {name for name, _ in spec.namespaces.joins}
    if spec.network.kind == "host":
        created -= {"net"}
    elif spec.network.kind == "join":
        created -= {"net"}
        joined.add("net")
    if not host.root and "user" not in created:
        raise UnsupportedError(
            "a sandbox without its own user namespace",
            tried="running as an unprivileged user",
            fix="keep the user namespace, or run as root",
        )
    if spec.user.groups and not host.several_ids:
        raise UnsupportedError(
            "supplementary groups",
            tried="a user namespace with a single id, in which setgroups is forbidden (CVE-2014-8989)",
            fix="install `uidmap` and give this user 65536 ids in /etc/subuid and /etc/subgid",
        )
    offsets = spec.namespaces.time_offsets
    return Plan(
        namespaces=created,
        joins=tuple(sorted(joined)),
        loopback="net" in created,
        time_offsets=None if offsets is None else (round(offsets[0] * 1e9), round(offsets[1] * 1e9)),
        uid=spec.user.uid,
        gid=spec.user.gid,
        groups=tuple(spec.user.groups),
        hostname=spec.hostname if "uts" in created else "",
        ops=tuple(_file_system(spec, host, sources)),
        limits=limits,
    )


def has_host_view(spec: SandboxSpec) -> bool:
    """Whether the root is put together from the host's own directories or from nothing: a skeleton, not an overlay."""
    return spec.rootfs.kind in ("host", "empty")


def home_of(spec: SandboxSpec) -> str:
    """HOME, and the working directory of runs that name none."""
    return "/box" if has_host_view(spec) else "/"


def _file_system(spec: SandboxSpec, host: HostFacts, sources: Sources) -> Iterator[Op]:
    skeleton = has_host_view(spec)
    if skeleton:
        yield Op(kind="root_tmpfs", size=SKELETON_SIZE, inodes=SKELETON_INODES)
    else:
        yield from _overlay(spec, sources)
    yield Op(kind="proc", target="/proc")
    yield from _dev()
    yield Op(kind="tmpfs", target="/tmp", size=SCRATCH_SIZE, inodes=SCRATCH_INODES, mode=0o1777)
    if skeleton:
        yield Op(
            kind="tmpfs",
            target="/box",
            size=SCRATCH_SIZE,
            inodes=SCRATCH_INODES,
            mode=0o755,
            uid=spec.user.uid,
            gid=spec.user.gid,
        )
    if spec.rootfs.kind == "host":  # after /tmp: the interpreter may live below it
        yield from _host_view(spec, host)
    for mount in spec.mounts:
        yield _mount(mount, sources)
    if skeleton or spec.readonly:
        yield Op(kind="readonly", target="/")


def _overlay(spec: SandboxSpec, sources: Sources) -> Iterator[Op]:
    for path in sources.layers:
        yield Op(kind="layer", source=path, idmap=True)
    top = spec.layers[-1] if spec.layers and spec.layers[-1].writable else None
    yield Op(
        kind="root_overlay",
        mode=0o700,
        size=top.size if top else SCRATCH_SIZE,
        inodes=top.inodes if top else SCRATCH_INODES,
    )


def _host_view(spec: SandboxSpec, host: HostFacts) -> Iterator[Op]:
    yield Op(kind="bind", source="/usr", target="/usr", readonly=True, recursive=True)
    for link, target in host.usr_links:
        yield Op(kind="symlink", target=link, data=target.encode())
    for path in (*host.usr_dirs, *host.prefixes, *host.etc):
        yield Op(kind="bind", source=path, target=path, readonly=True, recursive=True)
    for name, content in _etc_files(spec).items():
        yield Op(kind="file", target=f"/etc/{name}", data=content.encode(), mode=0o644)
    if spec.network.kind != "none" and host.resolver:
        yield Op(kind="bind", source="/etc/resolv.conf", target="/etc/resolv.conf", readonly=True)


def _etc_files(spec: SandboxSpec) -> dict[str, str]:
    uid, gid = spec.user.uid, spec.user.gid
    users = {0: "root:x:0:0:root:/root:/bin/sh", 65534: "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin"}
    groups = {0: "root:x:0:", 65534: "nogroup:x:65534:"}
    users[uid] = f"{'root' if uid == 0 else 'sandbox'}:x:{uid}:{gid}:sandbox:/box:/bin/sh"
    if gid not in groups:
        groups[gid] = f"sandbox:x:{gid}:"
    return {
        "passwd": "".join(f"{line}\n" for _, line in sorted(users.items())),
        "group": "".join(f"{line}\n" for _, line in sorted(groups.items())),
        "hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {spec.hostname}\n",
        "hostname": f"{spec.hostname}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }


def _dev() -> Iterator[Op]:
    yield Op(kind="tmpfs", target="/dev", size=64 * KIB, inodes=64, mode=0o755)
    for name in DEVICES:
        yield Op(kind="bind", source=f"/dev/{name}", target=f"/dev/{name}", device=True)
    for name, target in DEVICE_LINKS:
        yield Op(kind="symlink", target=f"/dev/{name}", data=target.encode())
    yield Op(kind="tmpfs", target="/dev/shm", size=SHM_SIZE, inodes=SCRATCH_INODES, mode=0o1777)
    yield Op(kind="readonly", target="/dev")


def _mount(mount: Bind | Tmpfs | File | Symlink, sources: Sources) -> Op:
    if isinstance(mount, Bind):
        return Op(
            kind="bind",
            source=mount.source,
            target=mount.target,
            readonly=mount.readonly,
            recursive=mount.recursive,
            identity=sources.identity[mount.source],
        )
    if isinstance(mount, Tmpfs):
        return Op(kind="tmpfs", target=mount.target, size=mount.size, inodes=mount.inodes, mode=mount.mode)
    if isinstance(mount, File):
        return Op(kind="file", target=mount.target, data=mount.content, mode=mount.mode)
    return Op(kind="symlink", target=mount.target, data=mount.to.encode())
