"""Run a program inside a real Linux container, built in this process from kernel primitives: no daemon, no image.

>>> from sandboxkit import Sandbox
>>> with Sandbox() as sb:
...     sb.run(["python3", "-c", "print(6*7)"], timeout=10).stdout
b'42\\n'
"""

from importlib.metadata import version as _version

from sandboxkit.errors import (
    CommandFailed,
    ImageError,
    LaunchError,
    SandboxClosedError,
    SandboxError,
    SpecError,
    UnsupportedError,
)
from sandboxkit.files import FileInfo
from sandboxkit.result import Enforced, Reason, Result, Usage
from sandboxkit.runtime.process import Process
from sandboxkit.sandbox import Sandbox
from sandboxkit.spec import (
    Bind,
    CgroupLimit,
    File,
    IoLimit,
    Namespace,
    Network,
    OverlayLayer,
    Rlimits,
    RootFS,
    Security,
    Symlink,
    Tmpfs,
    User,
)

__version__ = _version("sandboxkit")

__all__ = [
    "Bind",
    "CgroupLimit",
    "CommandFailed",
    "Enforced",
    "File",
    "FileInfo",
    "ImageError",
    "IoLimit",
    "LaunchError",
    "Namespace",
    "Network",
    "OverlayLayer",
    "Process",
    "Reason",
    "Result",
    "Rlimits",
    "RootFS",
    "Sandbox",
    "SandboxClosedError",
    "SandboxError",
    "Security",
    "SpecError",
    "Symlink",
    "Tmpfs",
    "UnsupportedError",
    "Usage",
    "User",
    "__version__",
]
