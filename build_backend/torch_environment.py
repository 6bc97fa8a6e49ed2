"""Finds the torch that will run gan_fast, without importing it.

The extension must be compiled against that torch and no other: torch's C++ interface changes with each minor version.
Two places are searched, in this order:

1. the import path of the running interpreter: `--no-build-isolation`, `python -m build`, a plain CMake build;
2. the site-packages of the environment the interpreter belongs to: under pip's isolation they are off the import path,
   yet that is where the package will be installed.

Importing torch is no option: under isolation numpy and its other dependencies are missing. The version stands in
`torch/version.py`, which is read as text.

Run as a script it prints what CMake needs: `python torch_environment.py [--torch-dir DIR]`.
"""

from __future__ import annotations

import argparse
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OLDEST_TORCH = (2, 11)


class BuildError(RuntimeError):
    """The build cannot go on; the message is one line that says what to do."""


class Torch(NamedTuple):
    directory: Path
    version: str

    @property
    def minor(self) -> tuple[int, int]:
        """(2, 14) for 2.14.1+cu130: what the C++ interface is stable within."""
        return parse_minor(self.version)

    @property
    def include_dirs(self) -> list[Path]:
        include = self.directory / "include"
        return [include, include / "torch" / "csrc" / "api" / "include"]

    @property
    def lib_dir(self) -> Path:
        return self.directory / "lib"

    @property
    def cxx11_abi(self) -> bool:
        """Whether torch was compiled with libstdc++'s C++11 strings: their namespace then stands in its symbols."""
        return b"__cxx1112basic_string" in (self.lib_dir / "libc10.so").read_bytes()

    @property
    def openmp_runtime(self) -> Path | None:
        """The OpenMP library torch brings along; to share it is to share its threads. None: the system's serves."""
        return next(iter(sorted(self.lib_dir.glob("libgomp*.so*"))), None)

    @property
    def pybind11_include(self) -> Path | None:
        """The pybind11 that torch's own bindings are built with, in its include folder; some distributions drop it."""
        include = self.directory / "include"
        return include if (include / "pybind11" / "pybind11.h").is_file() else None


def parse_minor(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise BuildError(f"cannot read a version from {version!r}; expected something like 2.14.1")
    return int(match[1]), int(match[2])


def torch_in(site_packages: Path) -> Torch | None:
    """The torch installed in this folder, if one is."""
    directory = site_packages / "torch"
    version_file = directory / "version.py"
    if not version_file.is_file():
        return None
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", version_file.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise BuildError(f"{version_file} holds no __version__: this torch is damaged, reinstall it")
    return Torch(directory, match[1])


def environment_site_packages() -> Iterator[Path]:
    """Where this interpreter's packages are installed, whether or not they are on the import path now."""
    schemes = [{}]
    config = Path(sys.prefix) / "pyvenv.cfg"
    in_venv = sys.prefix != sys.base_prefix
    sees_base = not in_venv or (
        config.is_file()
        and re.search(r"include-system-site-packages\s*=\s*true", config.read_text(encoding="utf-8"), re.I)
    )
    if in_venv and sees_base:
        schemes.append({"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
    for variables in schemes:
        for name in ("purelib", "platlib"):
            yield Path(sysconfig.get_path(name, vars=variables))
    if sees_base:
        yield Path(site.getusersitepackages())


def find_torch() -> Torch | None:
    """The torch that will run the package, or None where there is none yet."""
    for folder in [*(Path(entry) for entry in sys.path if entry), *environment_site_packages()]:
        torch = torch_in(folder)
        if torch is not None:
            if torch.minor < OLDEST_TORCH:
                raise BuildError(
                    f"gan_fast needs torch>={OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}, but {folder} has {torch.version}; "
                    f"run: pip install --upgrade torch"
                )
            return torch
    return None


def pybind11_from_pip() -> Path | None:
    for folder in [*(Path(entry) for entry in sys.path if entry), *environment_site_packages()]:
        include = folder / "pybind11" / "include"
        if (include / "pybind11" / "pybind11.h").is_file():
            return include
    return None


def runtime_requirement(torch: Torch | None) -> str:
    """What the metadata says of torch: a wheel needs the minor version it is built for, sources a range."""
    if torch is None:
        return f"torch>={OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}"
    return f"torch=={torch.minor[0]}.{torch.minor[1]}.*"


def cmake_settings(torch: Torch) -> str:
    """The facts about this torch as a CMake file."""
    pybind11 = torch.pybind11_include or pybind11_from_pip()
    if pybind11 is None:
        raise BuildError(f"{torch.directory} brings no pybind11 and none is installed; run: pip install pybind11")
    values = {
        "GAN_FAST_TORCH_VERSION": torch.version,
        "GAN_FAST_TORCH_INCLUDE_DIRS": ";".join(str(path) for path in torch.include_dirs),
        "GAN_FAST_TORCH_LIB_DIR": str(torch.lib_dir),
        "GAN_FAST_TORCH_CXX11_ABI": str(int(torch.cxx11_abi)),
        "GAN_FAST_TORCH_OPENMP": str(torch.openmp_runtime or ""),
        "GAN_FAST_PYBIND11_INCLUDE_DIR": str(pybind11),
    }
    return "".join(f'set({name} "{value}")\n' for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-dir", type=Path, help="the torch folder to use instead of searching")
    directory = parser.parse_args().torch_dir
    try:
        torch = torch_in(directory.parent) if directory else find_torch()
        if torch is None:
            raise BuildError(f"no torch found for {sys.executable}; run: pip install torch")
        sys.stdout.write(cmake_settings(torch))
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
