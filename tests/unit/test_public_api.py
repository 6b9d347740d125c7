"""The flat namespace: pinned, so that nothing comes or goes unnoticed."""

from __future__ import annotations

import sandboxkit

NAMES = [
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


def test_names():
    assert sorted(sandboxkit.__all__) == sorted(NAMES)
    assert all(hasattr(sandboxkit, name) for name in NAMES)


def test_errors_are_what_they_say():
    assert issubclass(sandboxkit.SpecError, ValueError)
    assert issubclass(sandboxkit.UnsupportedError, OSError)
    assert issubclass(sandboxkit.LaunchError, OSError)
    assert issubclass(sandboxkit.ImageError, OSError)
    assert issubclass(sandboxkit.SandboxClosedError, RuntimeError)
