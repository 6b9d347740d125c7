"""Builds the launcher executable: of what, and with which flags. Used by setup.py, by CI and by the tests."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

NATIVE = Path(__file__).resolve().parent
LAUNCHER_SOURCES = (
    "attest.c",
    "authority.c",
    "cgroup.c",
    "command.c",
    "fds.c",
    "files.c",
    "identity.c",
    "idrange.c",
    "init.c",
    "keeper.c",
    "launcher.c",
    "lockdown.c",
    "mounts.c",
    "namespaces.c",
    "plan.c",
    "report.c",
    "root.c",
    "serve.c",
    "tree.c",
    "wire.c",
)
WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-D_GNU_SOURCE")
HARDENING = ("-O2", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fPIE")
HARDENED_LINK = ("-pie", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack")
# Only where the compiler takes them: they depend on the architecture.
OPTIONAL = ("-fstack-clash-protection", "-fcf-protection")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")


def compiler() -> list[str]:
    """$CC, or the compiler Python was built with, or cc."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def accepted(cc: list[str], flags: tuple[str, ...]) -> list[str]:
    """Those of the flags that the compiler takes."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "empty.c")
        source.write_text("int main(void) { return 0; }\n")

        def takes(flag: str) -> bool:
            command = [*cc, "-Werror", flag, "-c", str(source), "-o", str(Path(scratch, "empty.o"))]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

        return [flag for flag in flags if takes(flag)]


def build(output: str | os.PathLike[str], *, faults: bool = False, sanitize: bool = False) -> None:
    """Compile and link it. For tests only: `faults` builds in fault injection, `sanitize` ASan and UBSan."""
    cc = compiler()
    flags = [*WARNINGS, *(SANITIZERS if sanitize else (*HARDENING, *accepted(cc, OPTIONAL)))]
    link = ["-fsanitize=address,undefined"] if sanitize else list(HARDENED_LINK)
    if faults:
        flags.append("-DSBX_FAULTS")
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    command = [
        *cc,
        *flags,
        *shlex.split(os.environ.get("CFLAGS", "")),
        f"-I{NATIVE}",
        *(str(NATIVE / source) for source in LAUNCHER_SOURCES),
        *link,
        *shlex.split(os.environ.get("LDFLAGS", "")),
        "-o",
        os.fspath(output),
    ]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    build(sys.argv[1], faults="--faults" in sys.argv, sanitize="--sanitize" in sys.argv)
