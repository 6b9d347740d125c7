"""The values a sandbox is made of: what they take, what they refuse, and that equal ones are equal."""

from __future__ import annotations

import copy
import pickle

import pytest

from sandboxkit import (
    Bind,
    CgroupLimit,
    File,
    Namespace,
    Network,
    OverlayLayer,
    Rlimits,
    RootFS,
    Sandbox,
    SpecError,
    Symlink,
    Tmpfs,
    User,
)  # fmt: skip
from sandboxkit.errors import CommandFailed, EmptyCommandError, ImageError, UnsupportedError, launch_error
from sandboxkit.limits_plan import LimitHost, plan_limits
from sandboxkit.plan import HostFacts, Sources, compile_plan
from sandboxkit.spec import SandboxSpec
from sandboxkit.spec.sizes import parse_size

FACTS = HostFacts(
    root=True,
    several_ids=True,
    usr_links=(("/bin", "usr/bin"),),
    usr_dirs=(),
    prefixes=("/opt/py",),
    etc=(),
    resolver=True,
)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (123, 123),
        ("123", 123),
        ("1K", 1024),
        ("64M", 64 << 20),
        ("64MiB", 64 << 20),
        ("1g", 1 << 30),
        ("1.5G", 3 << 29),
    ],
)
def test_sizes(value, size):
    assert parse_size(value, "x") == size


@pytest.mark.parametrize("value", [-1, True, 1.5, "1.5", "12 apples", "", "-1M", "M", None, float("nan"), "1e3", b"1M"])
def test_ambiguous_sizes_are_refused(value):
    with pytest.raises(SpecError) as failure:
        parse_size(value, "memory")
    assert failure.value.argument == "memory"


WRONG = {
    "rootfs": lambda: Sandbox("/"),
    "mounts": lambda: Sandbox(mounts=[1]),
    "one-mount": lambda: Sandbox(mounts=Bind("/a", "/b")),
    "hostname": lambda: Sandbox(hostname="a/b"),
    "long-hostname": lambda: Sandbox(hostname="x" * 65),
    "env-name": lambda: Sandbox(env={"A=B": "c"}),
    "env-nul": lambda: Sandbox(env={"A": "\0"}),
    "cwd": lambda: Sandbox(cwd="relative"),
    "readonly": lambda: Sandbox(readonly=1),
    "degraded": lambda: Sandbox(allow_degraded={"everything"}),
    "layers-on-host": lambda: Sandbox(layers=[OverlayLayer.tmpfs()]),
    "two-tops": lambda: Sandbox(RootFS.directory("/x"), layers=[OverlayLayer.tmpfs(), OverlayLayer.tmpfs()]),
    "bind-root": lambda: Bind("/a", "/"),
    "bind-dotdot": lambda: Bind("/a", "/b/../c"),
    "bind-relative": lambda: Bind("/a", "b"),
    "bind-nul": lambda: Bind("/a\0", "/b"),
    "file-content": lambda: File("/a", 3),
    "tmpfs-size": lambda: Tmpfs("/a", size="much"),
    "tmpfs-mode": lambda: Tmpfs("/a", mode=0o17777),
    "link": lambda: Symlink("/a", ""),
    "uid-bool": lambda: User(uid=True),
    "uid-text": lambda: User(uid="0"),
    "uid-negative": lambda: User(uid=-1),
    "uid-large": lambda: User(uid=2**32),
    "gid-supervisor": lambda: User(gid=65535),
    "memory": lambda: CgroupLimit(memory=0),
    "cpu": lambda: CgroupLimit(cpu=float("nan")),
    "cpuset": lambda: CgroupLimit(cpuset="3-1"),
    "pids": lambda: CgroupLimit(pids=0),
    "rlimit": lambda: Rlimits(nofile=(10, 5)),
    "namespace": lambda: Namespace.only("pid", "mnt", "nothing"),
    "no-pid": lambda: Namespace.without("pid"),
    "no-mnt": lambda: Namespace.only("pid"),
    "join-mnt": lambda: Namespace.join("mnt", 1),
    "join-two": lambda: Namespace.join("net", path="/x", pid=1),
    "offset": lambda: Namespace.all(monotonic=float("inf")),
    "network": lambda: Network.join(),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_before_anything_is_made(name):
    with pytest.raises(SpecError) as failure:
        WRONG[name]()
    assert isinstance(failure.value, ValueError)
    assert failure.value.expected
    with pytest.raises(TypeError):
        Sandbox(no_such_option=1)


def test_equal_however_spelled():
    assert CgroupLimit(memory="256M") == CgroupLimit(memory=268435456)
    assert CgroupLimit(cpuset="0,1,2") == CgroupLimit(cpuset="0-2")
    assert CgroupLimit(cpu=1) == CgroupLimit(cpu=1.0)
    assert Sandbox(env={"A": "1", "B": "2"}) == Sandbox(env={"B": "2", "A": "1"})
    assert Bind(b"/a", "/b//c/") == Bind("/a", "/b/c")


def test_specs_survive_pickle_copy_and_hash():
    spec = SandboxSpec(
        RootFS.directory("/x"), layers=[OverlayLayer("/y"), OverlayLayer.tmpfs("1M")], mounts=[Tmpfs("/t"), File("/f", "x")],
        namespaces=Namespace.join("net", 5).with_time(monotonic=3), limits=CgroupLimit.grader(), env={"A": None},
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert copy.deepcopy(spec) == spec
    assert hash(spec) == hash(pickle.loads(pickle.dumps(spec)))
    assert spec.replace(hostname="other") != spec


def test_default_numbers():
    assert (CgroupLimit.grader().memory, CgroupLimit.grader().pids, CgroupLimit.grader().cpu) == (512 << 20, 64, 1)
    assert (CgroupLimit.agent().memory, CgroupLimit.agent().pids, CgroupLimit.agent().cpu) == (4 << 30, 512, 2)
    assert CgroupLimit.default().memory <= 1 << 30
    assert {number: soft for number, soft, _ in Rlimits().items()} == {
        3: 8 << 20, 4: 0, 7: 4096, 8: 64 << 10, 11: 1024, 12: 0, 13: 0, 14: 0,
    }  # fmt: skip


ERRORS = [
    SpecError("argument", 1, "two"),
    EmptyCommandError("args", [], "words"),
    UnsupportedError("it", tried="that", fix="this"),
    launch_error("exec", 2, "/x", index=3),
    launch_error("clone", 1),
    ImageError("bad", path="/p", member="m"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickle_and_copy(error):
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert (str(other), other.code, other.__dict__) == (str(error), error.code, error.__dict__)


def test_every_hint_names_a_step():
    from sandboxkit.errors import _HINTS
    from sandboxkit.runtime import native

    assert {step for step, _ in _HINTS} <= set(native.STEP_NAMES.values())
    assert issubclass(CommandFailed, OSError) is False


def test_plans_are_pure_and_ordered():
    spec = SandboxSpec(mounts=[Symlink("/box/l", "x"), Tmpfs("/box/t")])
    limits = plan_limits(spec, LimitHost(controllers={"memory": (1, "/cg/m"), "pids": (2, "/cg/p")}), "name")
    plan = compile_plan(spec, FACTS, Sources(), limits)
    assert plan == compile_plan(spec, FACTS, Sources(), limits)
    kinds = [op.kind for op in plan.ops]
    assert kinds[0] == "root_tmpfs"
    assert kinds[-3:] == ["symlink", "tmpfs", "readonly"]
    assert limits.cgroups == (("/cg/m/name", 1), ("/cg/p/name", 2))
    assert (0, "memory.limit_in_bytes", str(CgroupLimit.default().memory)) in limits.settings
    assert (1, "pids.max", "258") in limits.settings
    assert "/etc/resolv.conf" not in [op.target for op in plan.ops]
    shared = compile_plan(spec.replace(network=Network.host()), FACTS, Sources(), limits)
    assert "/etc/resolv.conf" in [op.target for op in shared.ops]
    assert "net" not in shared.namespaces
    assert not shared.loopback


def test_limits_that_cannot_be_had():
    nothing = LimitHost(reasons={"memory": "no cgroup"})
    default = plan_limits(SandboxSpec(), nothing, "name")
    assert dict(default.controls)["memory"].by == "rlimit"
    with pytest.raises(UnsupportedError) as failure:
        plan_limits(SandboxSpec(limits=CgroupLimit(memory="1M")), nothing, "name")
    assert "no cgroup" in str(failure.value)
    degraded = plan_limits(SandboxSpec(limits=CgroupLimit(memory="1M"), allow_degraded={"memory"}), nothing, "name")
    assert degraded.rlimits == ((2, 1 << 20, 1 << 20),)
    assert plan_limits(SandboxSpec(limits=CgroupLimit.unlimited()), nothing, "name").controls == ()
