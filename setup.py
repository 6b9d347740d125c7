"""Builds the cffi extension and, from the same C sources, the launcher that is installed beside the modules."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).resolve().parent / "src" / "_native"))

import build_launcher


class BuildExtensionAndLauncher(build_ext):
    """The launcher goes where the extension goes: into the build tree, or beside the sources if editable."""

    def run(self) -> None:
        super().run()
        build_launcher.build(self.launcher)

    @property
    def launcher(self) -> str:
        extension = self.get_ext_fullpath("sandboxkit._native")
        return str(Path(extension).parent / "launcher")

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), self.launcher]

    def get_output_mapping(self) -> dict[str, str]:
        mapping = super().get_output_mapping()
        if self.editable_mode or self.inplace:
            mapping[str(Path(self.build_lib, "sandboxkit", "launcher"))] = self.launcher
        return mapping


setup(
    cffi_modules=["src/_native/build_ffi.py:ffi"],
    cmdclass={"build_ext": BuildExtensionAndLauncher},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
