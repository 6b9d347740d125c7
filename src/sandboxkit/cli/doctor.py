"""`python -m sandboxkit doctor`: what this host can do, each with its reason and its fix."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from itertools import groupby

import attrs

from sandboxkit.runtime import probe
from sandboxkit.runtime.probe import Finding, tried
from sandboxkit.sandbox import Sandbox
from sandboxkit.spec import Namespace, RootFS


def _open(sandbox: Sandbox, detail: str) -> str:
    with sandbox:
        missing = sandbox.enforced.get("idmap")
    return detail if missing is None else f"{detail}, but {missing.detail}"


def _namespaces() -> Iterator[Finding]:
    base = ("user", "pid", "mnt")
    for name in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
        sandbox = Sandbox(RootFS.empty(), namespaces=Namespace.only(*base, name))
        yield tried("namespaces", name, lambda box=sandbox: _open(box, "made"), needed=True)  # type: ignore[misc]
    timed = Sandbox(RootFS.empty(), namespaces=Namespace.all(monotonic=1))
    yield tried("namespaces", "time", lambda: _open(timed, "made"))


def _file_systems() -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="sandboxkit-doctor-") as directory:
        root = os.path.join(directory, "root")
        os.mkdir(root)
        overlay = Sandbox(RootFS.directory(root))
        yield tried("file systems", "overlay", lambda: _open(overlay, "mounted"))
        yield _idmap(overlay.replace())


def _idmap(sandbox: Sandbox) -> Finding:
    name = "idmapped mounts"
    if os.geteuid() != 0:
        return Finding(group="file systems", name=name, ok=False, detail="not for an ordinary user", fix="run as root")
    try:
        with sandbox:
            missing = sandbox.enforced.get("idmap")
    except OSError as error:
        return Finding(group="file systems", name=name, ok=False, detail=str(error))
    return Finding(
        group="file systems",
        name=name,
        ok=missing is None,
        detail="owners are shifted" if missing is None else missing.detail,
        fix="keep roots on ext4, xfs, btrfs or tmpfs, with a kernel from 5.19 on",
    )


def examine() -> list[Finding]:
    """Everything, in the order in which it is printed."""
    return [
        *probe.system_calls(), *probe.user_namespaces(), *_namespaces(), *_file_systems(), *probe.cgroups(),
        tried("sandbox", "default", lambda: _open(Sandbox(), "opened and closed"), needed=True),
    ]  # fmt: skip


def doctor(*, as_json: bool) -> int:
    """Print the findings; 0 if a sandbox can be made here, 1 if not."""
    findings = examine()
    usable = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        print(json.dumps({"usable": usable, "findings": [attrs.asdict(finding) for finding in findings]}, indent=2))
        return 0 if usable else 1
    for group, members in groupby(findings, key=lambda finding: finding.group):
        print(group)
        for finding in members:
            print(f"  {'ok     ' if finding.ok else 'missing'}  {finding.name}: {finding.detail}")
            if not finding.ok and finding.fix:
                print(f"           fix: {finding.fix}")
    print("sandboxes can be made here" if usable else "no sandbox can be made here")
    return 0 if usable else 1
