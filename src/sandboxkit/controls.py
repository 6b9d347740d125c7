"""What `.enforced` says: every control of a sandbox and what enforces it. Pure."""

from __future__ import annotations

from sandboxkit.plan import Plan, has_host_view
from sandboxkit.result import Control
from sandboxkit.spec import Namespace, SandboxSpec

_NAMES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time")


def controls_of(spec: SandboxSpec, plan: Plan) -> dict[str, Control]:
    """The controls by name; `by` is empty where nothing enforces one."""
    default = Namespace.all()
    found: dict[str, Control] = {}
    for name in _NAMES:
        asked = spec.namespaces != default
        if name in plan.namespaces or (name == "time" and plan.time_offsets is not None):
            found[f"namespace:{name}"] = Control(by="namespace", detail="its own", asked=asked)
        elif name in plan.joins:
            found[f"namespace:{name}"] = Control(by="namespace", detail="joined", asked=True)
        else:
            found[f"namespace:{name}"] = Control(by="", detail="shared with the caller", asked=asked)
    found["network"] = Control(
        by="namespace" if "net" in plan.namespaces or "net" in plan.joins else "",
        detail={"none": "loopback only", "host": "the host's network", "join": "joined"}[spec.network.kind],
        asked=spec.network.kind != "none",
    )
    found["rootfs"] = Control(by="pivot_root", detail=spec.rootfs.kind, asked=spec.rootfs.kind != "host")
    found["readonly"] = Control(
        by="mount" if spec.readonly or has_host_view(spec) else "",
        detail="the root is read-only" if spec.readonly or has_host_view(spec) else "writes go to the upper layer",
        asked=spec.readonly,
    )
    found["capabilities"] = Control(by="kernel", detail="none, in no set", asked=False)
    found["no_new_privs"] = Control(by="kernel", detail="on", asked=False)
    found["seccomp"] = Control(by="", detail="no filter in this version", asked=False)
    found["landlock"] = Control(by="", detail="no ruleset in this version", asked=False)
    found.update(plan.limits.controls)
    return found
