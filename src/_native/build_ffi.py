"""The cffi extension `sandboxkit._native`: the ABI block of abi.h and the caller's side of it in C."""

from __future__ import annotations

import re
from pathlib import Path

import cffi

NATIVE = Path("src/_native")


def abi() -> str:
    """What stands between the markers of abi.h, without its comments."""
    text = (Path(__file__).resolve().parent / "abi.h").read_text(encoding="ascii")
    block = text.split("/* ABI BEGIN */", 1)[1].split("/* ABI END */", 1)[0]
    return re.sub(r"/\*.*?\*/", "", block, flags=re.DOTALL)


ffi = cffi.FFI()
ffi.cdef(abi())
ffi.set_source(
    "sandboxkit._native",
    '#include "abi.h"',
    sources=[str(NATIVE / name) for name in ("client.c", "probe.c")],
    depends=[str(NATIVE / "abi.h")],
    include_dirs=[str(NATIVE)],
    # The file that cffi generates is not ours to keep free of these two.
    extra_compile_args=[
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-parameter",
        "-Wno-missing-field-initializers",
        "-D_GNU_SOURCE",
        "-fstack-protector-strong",
    ],
    extra_link_args=["-Wl,-z,relro,-z,now"],
    py_limited_api=True,
)
