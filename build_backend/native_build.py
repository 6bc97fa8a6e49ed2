"""Drives CMake and Ninja: which tools, how many jobs, and a configuration that is never stale."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from .torch_environment import BuildError, Torch, find_torch, pybind11_from_pip

OLDEST_TOOLS = {"cmake": (3, 18), "ninja": (1, 10)}
OLDEST_SETUPTOOLS = (77, 0)
# A file that includes torch's headers takes up to about this much to compile with -O3.
BYTES_PER_JOB = 2 * 2**30


def find_tool(name: str) -> Path | None:
    """A working cmake or ninja, new enough: on PATH, or beside the interpreter.

    It is run to find out: the scripts that pip installs for them are on PATH but broken under build isolation.
    """
    beside_python = str(Path(sys.executable).parent)
    search_path = os.pathsep.join([os.environ.get("PATH", os.defpath), beside_python])
    for folder in search_path.split(os.pathsep):
        found = shutil.which(name, path=folder)
        if found is None:
            continue
        shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        match = re.search(r"(\d+)\.(\d+)", shown.stdout)
        if shown.returncode == 0 and match and (int(match[1]), int(match[2])) >= OLDEST_TOOLS[name]:
            return Path(found)
    return None


def missing_requirements(torch: Torch | None) -> list[str]:
    """What pip has to bring for this build, beside setuptools: only what the machine does not have."""
    requirements = [
        f"{name}>={major}.{minor}" for name, (major, minor) in OLDEST_TOOLS.items() if find_tool(name) is None
    ]
    if torch is not None and torch.pybind11_include is None and pybind11_from_pip() is None:
        requirements.append("pybind11>=2.13")
    return requirements


def require_environment() -> Torch:
    """The torch to build against, once everything a build needs is there; otherwise one line that says what is not."""
    torch = find_torch()
    if torch is None:
        raise BuildError(
            "gan_fast is built against the torch that will run it, and this environment has none; "
            "run: pip install torch   (or install gan_fast without --no-build-isolation)"
        )
    missing = missing_requirements(torch)
    if missing:
        raise BuildError(f"the build needs {' and '.join(missing)}; run: pip install {shlex.join(missing)}")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise BuildError(
            f"Python's headers are not in {sysconfig.get_path('include')}; install them "
            "(Debian: apt install python3-dev)"
        )
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(shutil.which(shlex.split(compiler)[0]) for compiler in compilers):
        raise BuildError(
            f"no C++ compiler: looked for {', '.join(compilers)}; install one that knows C++20 "
            "(Debian: apt install g++) or name it in CXX"
        )
    return torch


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that a build may take now: what the kernel calls available, or less where a container's limit is lower.

    None where the system does not tell.
    """
    limits = []
    meminfo = proc / "meminfo"
    if meminfo.is_file():
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"), re.MULTILINE)
        if match:
            limits.append(int(match[1]) * 1024)
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text(encoding="ascii").strip() != "max":
        limits.append(max(0, int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))))
    return min(limits) if limits else None


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def job_limit(cores: int, memory: int | None, environment: Mapping[str, str]) -> int:
    """How many files to compile at once: MAX_JOBS if it is set, else the cores, as far as memory reaches."""
    asked = environment.get("MAX_JOBS", "").strip()
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise BuildError(f"MAX_JOBS is {asked!r}; expected a whole number of at least 1")
        return int(asked)
    return cores if memory is None else max(1, min(cores, memory // BYTES_PER_JOB))


def forget_configuration(build_dir: Path) -> None:
    """Drop what CMake remembers of tools and paths, and keep the compiled objects.

    Pip's isolated environment holds the ninja, the cmake and perhaps the torch of one run and is deleted after it.
    Ninja compares command lines, so an object is compiled again exactly when a path that it depends on has moved.
    """
    (build_dir / "CMakeCache.txt").unlink(missing_ok=True)
    for compiler_facts in (build_dir / "CMakeFiles").glob("[0-9]*.[0-9]*"):
        shutil.rmtree(compiler_facts)


def build(source_dir: Path, build_dir: Path) -> list[Path]:
    """Compile; return the extension and the note of what it was built for, as they belong into the package."""
    torch = require_environment()
    cmake, ninja = find_tool("cmake"), find_tool("ninja")
    jobs = job_limit(usable_cores(), available_memory(), os.environ)
    build_dir.mkdir(parents=True, exist_ok=True)
    forget_configuration(build_dir)
    commands = [
        [
            str(cmake),
            *("-S", str(source_dir), "-B", str(build_dir), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DGAN_FAST_TORCH_DIR={torch.directory}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ],
        [str(cmake), "--build", str(build_dir), "--parallel", str(jobs)],
    ]
    print(f"gan_fast: building for torch {torch.version} in {torch.directory}, {jobs} jobs", flush=True)
    for command in commands:
        if subprocess.run(command, check=False).returncode != 0:
            raise BuildError(f"the build stopped at: {shlex.join(command)}   (its messages are above)")
    package = build_dir / "gan_fast"
    return [next(package.glob("_C*.so")), package / "_built_for.json"]
