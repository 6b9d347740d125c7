"""What a sandbox is: frozen values, checked when made. No input or output happens here."""

from sandboxkit.spec.layers import OverlayLayer
from sandboxkit.spec.limits import CgroupLimit, IoLimit, Rlimits
from sandboxkit.spec.mounts import Bind, File, Mount, Symlink, Tmpfs
from sandboxkit.spec.namespaces import Namespace, Target
from sandboxkit.spec.network import Network
from sandboxkit.spec.rootfs import RootFS
from sandboxkit.spec.sandbox import SandboxSpec
from sandboxkit.spec.security import Security
from sandboxkit.spec.user import User

__all__ = [
    "Bind",
    "CgroupLimit",
    "File",
    "IoLimit",
    "Mount",
    "Namespace",
    "Network",
    "OverlayLayer",
    "Rlimits",
    "RootFS",
    "SandboxSpec",
    "Security",
    "Symlink",
    "Target",
    "Tmpfs",
    "User",
]
