"""A plan as the bytes that C reads: `struct sbx_plan`, its arrays, and the strings behind them."""

from __future__ import annotations

from typing import Any

from sandboxkit.plan import Op, Plan
from sandboxkit.runtime.native import ffi, lib

_NAMESPACE_FLAGS = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x00000080,
}  # CLONE_NEW*, linux/sched.h
_OP_KINDS = {
    "layer": "SBX_OP_LAYER",
    "root_overlay": "SBX_OP_ROOT_OVERLAY",
    "root_tmpfs": "SBX_OP_ROOT_TMPFS",
    "file": "SBX_OP_FILE",
    "symlink": "SBX_OP_SYMLINK",
    "bind": "SBX_OP_BIND",
    "tmpfs": "SBX_OP_TMPFS",
    "proc": "SBX_OP_PROC",
    "readonly": "SBX_OP_READONLY",
}


class _Arena:
    """Bytes behind a header, addressed by offset; equal strings are stored once."""

    def __init__(self, start: int) -> None:
        self.data = bytearray()
        self._start = start
        self._known: dict[bytes, int] = {}

    def array(self, items: Any, count: int) -> int:
        """The offset of a copy of a cffi array, aligned for any member."""
        if count == 0:
            return 0
        self.data += bytes(-(self._start + len(self.data)) % 8)
        offset = self._start + len(self.data)
        self.data += bytes(ffi.buffer(items))
        return offset

    def string(self, text: str | bytes) -> int:
        raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        if not raw:
            return 0
        if raw not in self._known:
            self._known[raw] = self._start + len(self.data)
            self.data += raw + b"\0"
        return self._known[raw]


def _fill_op(record: Any, op: Op, arena: _Arena) -> None:
    record.kind = getattr(lib, _OP_KINDS[op.kind])
    record.flags = (
        (lib.SBX_OP_RDONLY if op.readonly else 0)
        | (lib.SBX_OP_RECURSIVE if op.recursive else 0)
        | (lib.SBX_OP_DEVICE if op.device else 0)
        | (lib.SBX_OP_IDMAP if op.idmap else 0)
    )
    record.source, record.target = arena.string(op.source), arena.string(op.target)
    record.data, record.data_len = arena.string(op.data), len(op.data)
    record.mode, record.uid, record.gid = op.mode, op.uid, op.gid
    record.size, record.inodes = op.size, op.inodes
    record.dev, record.ino = op.identity


def encode_plan(plan: Plan) -> bytes:
    """The whole record, ready to be sent. Its size is its own second field."""
    header = ffi.new("struct sbx_plan *")
    arena = _Arena(ffi.sizeof("struct sbx_plan"))
    ops = ffi.new("struct sbx_op[]", len(plan.ops))
    for record, op in zip(ops, plan.ops, strict=True):
        _fill_op(record, op, arena)
    cgroups = ffi.new("struct sbx_cgroup[]", len(plan.limits.cgroups))
    for record, (directory, version) in zip(cgroups, plan.limits.cgroups, strict=True):
        record.dir = arena.string(directory)
        record.flags = lib.SBX_CGROUP_TASKS if version == 1 else lib.SBX_CGROUP_PROCS
    settings = ffi.new("struct sbx_setting[]", len(plan.limits.settings))
    for record, (index, file, value) in zip(settings, plan.limits.settings, strict=True):
        record.cgroup, record.file, record.value = index, arena.string(file), arena.string(value)
    joins = ffi.new("struct sbx_join[]", len(plan.joins))
    for record, name in zip(joins, plan.joins, strict=True):
        record.nstype = _NAMESPACE_FLAGS[name]

    header.kind = lib.SBX_CREATE
    header.flags = (
        (lib.SBX_PLAN_USERNS if "user" in plan.namespaces else 0)
        | (lib.SBX_PLAN_LOOPBACK if plan.loopback else 0)
        | (lib.SBX_PLAN_TIME if plan.time_offsets is not None else 0)
    )
    header.namespaces = sum(_NAMESPACE_FLAGS[name] for name in plan.namespaces - {"user", "time"})
    header.uid, header.gid = plan.uid, plan.gid
    header.hostname = arena.string(plan.hostname)
    if plan.time_offsets is not None:
        header.monotonic_ns, header.boottime_ns = plan.time_offsets
    header.group_count, header.groups = (
        len(plan.groups),
        arena.array(ffi.new("uint32_t[]", plan.groups), len(plan.groups)),
    )
    header.op_count, header.ops = len(plan.ops), arena.array(ops, len(plan.ops))
    header.join_count, header.joins = len(plan.joins), arena.array(joins, len(plan.joins))
    header.cgroup_count, header.cgroups = len(cgroups), arena.array(cgroups, len(cgroups))
    header.setting_count, header.settings = len(settings), arena.array(settings, len(settings))
    arena.data += b"\0"
    header.size = ffi.sizeof("struct sbx_plan") + len(arena.data)
    return bytes(ffi.buffer(header)) + bytes(arena.data)
