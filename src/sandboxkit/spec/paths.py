"""Paths as they come from the caller: text, absolute, and nothing in them that could mean something else later."""

from __future__ import annotations

import os
import posixpath
from typing import Any

from sandboxkit.errors import SpecError

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def text_path(value: Any, argument: str) -> str:
    """str, bytes or PathLike as str; NUL and the empty path are refused."""
    try:
        path = os.fsdecode(value)
    except TypeError:
        raise SpecError(argument, value, "a path") from None
    if not path or "\0" in path:
        raise SpecError(argument, value, "a path that is not empty and has no NUL")
    return path


def host_path(value: Any, argument: str) -> str:
    """A path on the host, made absolute from the current directory."""
    return os.path.abspath(text_path(value, argument))


def inside_path(value: Any, argument: str) -> str:
    """An absolute path inside the sandbox, in its shortest form; `..` is refused, for it would depend on links."""
    path = text_path(value, argument)
    if not path.startswith("/") or ".." in path.split("/"):
        raise SpecError(argument, value, "an absolute path without '..'")
    return posixpath.normpath("/" + path.lstrip("/"))


def target_path(value: Any, argument: str) -> str:
    """Where something is put inside: any absolute path but the root itself."""
    path = inside_path(value, argument)
    if path == "/":
        raise SpecError(argument, value, "a path below '/'")
    return path
