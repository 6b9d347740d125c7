"""Sandbox: a frozen specification that can be opened, used, and closed."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from sandboxkit.controls import controls_of
from sandboxkit.errors import LaunchError, SandboxClosedError, SandboxError, SpecError, UnsupportedError, launch_error
from sandboxkit.files import Files
from sandboxkit.limits_plan import plan_limits
from sandboxkit.plan import Plan, Sources, compile_plan, home_of
from sandboxkit.result import Enforced, Result
from sandboxkit.runtime import launcher as launchers
from sandboxkit.runtime.command import Defaults
from sandboxkit.runtime.host import host_facts, interpreter_path, limit_host, rlimits_for
from sandboxkit.runtime.layer_store import freeze_upper
from sandboxkit.runtime.process import Process, popen, run
from sandboxkit.runtime.session import Session, open_session
from sandboxkit.runtime.unpack import check_directory, unpack_tar
from sandboxkit.spec import Bind, OverlayLayer, RootFS, SandboxSpec

_STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_serial = itertools.count(1)


class Sandbox:
    """A program's own small Linux system: its root, its namespaces, its limits.

    The arguments are a specification: checked when given, never changed afterwards, comparable and picklable. Nothing
    exists on the host until the sandbox is opened, by `with` or `open()`; once closed it stays closed, and `replace()`
    or the specification itself makes the next one.

        >>> from sandboxkit import Sandbox
        >>> with Sandbox() as sb:
        ...     sb.run(["echo", "hello"], text=True).stdout
        'hello\\n'

    Raises `SpecError` for a request that is wrong, `UnsupportedError` (when opened) for one that this host cannot
    fulfil, `LaunchError` (when opened) for a step of the set-up that failed. Thread-safe: any thread may call any
    method, and runs go on side by side. A sandbox that was open when its process forked belongs to the parent.
    """

    def __init__(self, rootfs: RootFS | None = None, **options: Any) -> None:
        unknown = set(options) - {field.name for field in attrs.fields(SandboxSpec)}
        if unknown:
            raise TypeError(f"Sandbox() got unexpected arguments: {', '.join(sorted(unknown))}")
        self._spec = SandboxSpec(*(() if rootfs is None else (rootfs,)), **options)
        self._session: Session | None = None
        self._opened = False
        self._opening = threading.Lock()
        self._finalizer: weakref.finalize[..., Sandbox] | None = None

    @property
    def spec(self) -> SandboxSpec:
        """The specification this sandbox was made of."""
        return self._spec

    def __repr__(self) -> str:
        state = (
            "open" if self._session is not None and not self._session.closed else "closed" if self._opened else "new"
        )
        return f"<Sandbox {state} {self._spec!r}>"

    def __eq__(self, other: object) -> bool:
        return self._spec == other._spec if isinstance(other, Sandbox) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self._spec,)

    def replace(self, **changes: Any) -> Sandbox:
        """A new, unopened sandbox that differs in the named arguments."""
        return _unpickle(self._spec.replace(**changes))

    # Opening and closing

    def open(self) -> Sandbox:
        """Make the sandbox. Raises `SandboxError` if it is or was open already."""
        with self._opening:
            if self._opened:
                raise SandboxError(
                    "already_opened", "a sandbox is opened once; replace() gives a fresh one of the same kind"
                )
            self._opened = True
            self._session = session = _open(self._spec)
            self._run_defaults = _run_defaults(self._spec, session)
            self._finalizer = weakref.finalize(self, session.close)
        return self

    def close(self) -> None:
        """End every process in it and remove it from the host. Idempotent."""
        if self._session is not None:
            self._session.close()
        if self._finalizer is not None:
            self._finalizer.detach()

    def __enter__(self) -> Sandbox:
        return self.open()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _live(self) -> Session:
        if self._session is None:
            raise SandboxClosedError("this sandbox has not been opened: use it in a with statement, or call open()")
        self._session.check_open()
        return self._session

    # Running

    def run(self, args: Any = None, **options: Any) -> Result:
        """Run a command to its end, as `subprocess.run` does; captured by default, and its fate is a `Result`.

        See docs/reference.md for the options. A list is exec'd as it is; there is no shell.
        """
        return run(self._live(), self._run_defaults, _given(args), **options)

    def popen(self, args: Any = None, **options: Any) -> Process:
        """Start a command and return at once, as `subprocess.Popen` does."""
        return popen(self._live(), self._run_defaults, _given(args), **options)

    def shell(self, script: str, **options: Any) -> Result:
        """Run a script with the sandbox's `/bin/sh -c`: the only place where a shell is ever involved."""
        if not isinstance(script, (str, bytes)):
            raise SpecError("script", script, "the text of a shell script")
        return self.run(["/bin/sh", "-c", script], **options)

    def kill(self) -> None:
        """End every process that runs in the sandbox; each run ends with `Reason.KILLED`. The sandbox stays open."""
        session = self._live()
        with session.lock:
            runs = list(session.runs)
        for current in runs:
            with contextlib.suppress(OSError):
                current.kill()

    # Looking at it

    @property
    def files(self) -> Files:
        """The sandbox's files, with the rights of its user."""
        return Files(self._live())

    @property
    def enforced(self) -> Enforced:
        """Every control, and what enforces it or why nothing does."""
        return self._live().enforced

    def commit(self) -> OverlayLayer:
        """Freeze what was written to the root so far as a layer that other sandboxes can stack. This one goes on.

        Raises `UnsupportedError` for a root without an upper layer: the host view and the empty root.
        """
        session = self._live()
        if session.upper_fd < 0:
            raise UnsupportedError(
                "commit()",
                tried=f"a {self._spec.rootfs.kind} root, which has no upper layer",
                fix="use RootFS.directory or RootFS.tar",
            )
        path = freeze_upper(
            session.upper_fd,
            id_shift=session.inside_ids if session.root else _same_ids,
            xattr_prefix="trusted." if session.root else "user.",
        )
        return OverlayLayer(path)


def _run_defaults(spec: SandboxSpec, session: Session) -> Defaults:
    return Defaults(
        env=base_environment(spec),
        cwd=session.cwd,
        rlimits=(*rlimits_for(spec.rlimits), *session.plan.limits.rlimits),
        user=spec.user,
    )


def _same_ids(uid: int, gid: int) -> tuple[int, int]:
    return uid, gid


def _given(args: Any) -> Any:
    if args is None:
        raise SpecError("args", args, "a command: only an image has one of its own to fall back on")
    return args


def _unpickle(spec: SandboxSpec) -> Sandbox:
    sandbox = Sandbox()
    sandbox._spec = spec
    return sandbox


def base_environment(spec: SandboxSpec) -> Mapping[str, str]:
    """What every run starts from: nothing of the caller's environment, then the sandbox's own `env`."""
    path = _STANDARD_PATH
    if spec.rootfs.kind == "host":
        path = ":".join((*interpreter_path(), path))
    base: dict[str, str] = {"PATH": path, "HOME": home_of(spec), "LANG": "C.UTF-8"}
    for name, value in spec.env:
        if value is None:
            base.pop(name, None)
        else:
            base[name] = value
    return base


def _open(spec: SandboxSpec) -> Session:
    launcher = launchers.current()
    limits = plan_limits(spec, limit_host(launcher.authority), f"sandboxkit-{os.getpid()}-{next(_serial)}")
    plan = compile_plan(spec, host_facts(launcher.authority), _find_sources(spec), limits)
    with _joined(spec, plan) as joins:
        return open_session(launcher, plan, joins, cwd=spec.cwd or home_of(spec), controls=controls_of(spec, plan))


def _find_sources(spec: SandboxSpec) -> Sources:
    layers: list[str] = []
    if spec.rootfs.kind == "tar":
        layers.append(unpack_tar(spec.rootfs.path).path)
    elif spec.rootfs.kind == "directory":
        layers.append(check_directory(spec.rootfs.path))
    layers += [check_directory(layer.path) for layer in spec.layers if not layer.writable]
    identity: dict[str, tuple[int, int]] = {}
    for mount in spec.mounts:
        if isinstance(mount, Bind):
            try:
                info = os.stat(mount.source)
            except OSError as error:
                raise launch_error("bind_source", error.errno or 0, mount.source) from error
            identity[mount.source] = (info.st_dev, info.st_ino)
    return Sources(layers=tuple(layers), identity=identity)


@contextlib.contextmanager
def _joined(spec: SandboxSpec, plan: Plan) -> Iterator[tuple[int, ...]]:
    """The namespaces to join, opened in the plan's order."""
    targets = dict(spec.namespaces.joins)
    if spec.network.target is not None:
        targets["net"] = spec.network.target
    with contextlib.ExitStack() as stack:
        fds: list[int] = []
        for name in plan.joins:
            try:
                fds.append(targets[name].open(name))
            except OSError as error:
                raise launch_error("ns_join", error.errno or 0, str(targets[name])) from error
            stack.callback(os.close, fds[-1])
        yield tuple(fds)


__all__ = ["LaunchError", "Sandbox"]
