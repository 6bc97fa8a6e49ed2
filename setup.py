"""What depends on the machine: the extension, and the torch it is for. Everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
sys.path.insert(0, str(ROOT))

from build_backend import native_build  # noqa: E402
from build_backend.torch_environment import BuildError, find_torch, runtime_requirement  # noqa: E402


class BuildWithCMake(build_ext):
    """`_C` and `_built_for.json` go beside the Python files: of the wheel being built, or of this folder (in place)."""

    def run(self) -> None:
        build_dir = Path(self.build_temp).resolve()
        try:
            built = native_build.build(ROOT, build_dir)
        except BuildError as error:
            sys.exit(f"gan_fast: {error}")
        for file in built:
            target = self._package_dir() / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def _package_dir(self) -> Path:
        in_place = self.inplace or self.editable_mode
        return ROOT / "gan_fast" if in_place else Path(self.build_lib) / "gan_fast"

    def get_outputs(self) -> list[str]:
        extension = self.get_ext_filename("_C")
        return [str(self._package_dir() / name) for name in (extension, "_built_for.json")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class FreshBuildPy(build_py):
    """Starts from an empty folder: setuptools would pack modules there that have since been removed."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "gan_fast", ignore_errors=True)
        super().run()


def torch_requirement() -> str:
    try:
        return runtime_requirement(None if "sdist" in sys.argv else find_torch())
    except BuildError as error:
        sys.exit(f"gan_fast: {error}")


setup(
    ext_modules=[Extension("gan_fast._C", sources=[])],
    cmdclass={"build_ext": BuildWithCMake, "build_py": FreshBuildPy},
    install_requires=[torch_requirement(), "numpy"],
)
