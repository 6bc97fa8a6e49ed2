"""What a source distribution and a wheel contain: what they need and nothing else.

The real setup.py, CMake and Ninja run here, on a copy of the project whose C++ sources are replaced by an empty module,
so that it takes seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from build_backend import native_build

ROOT = Path(__file__).parents[2]
EXTENSION = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
MODULE = 'extern "C" __attribute__((visibility("default"))) void* PyInit__C() { return nullptr; }\n'


def copy_project(target: Path) -> Path:
    ignored = shutil.ignore_patterns(
        ".*", "build", "dist", "runs", "*.egg-info", "__pycache__", "*.so", "_built_for.json"
    )
    return Path(shutil.copytree(ROOT, target, ignore=ignored))


def call_backend(project: Path, call: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = ['.']; from build_backend import backend; backend.{call}"],
        cwd=project, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def small_project(tmp_path):
    if not native_build.find_tool("cmake") or not native_build.find_tool("ninja"):
        pytest.skip("cmake or ninja is not installed")
    project = copy_project(tmp_path / "project")
    for folder in (project / "csrc").iterdir():
        if folder.is_dir() and folder.name != "common":
            shutil.rmtree(folder)
    for source in (project / "csrc").rglob("*.cpp"):
        source.unlink()
    (project / "csrc" / "module.cpp").write_text(MODULE)
    return project


def wheel_of(project: Path, **environment: str) -> zipfile.ZipFile:
    built = call_backend(project, "build_wheel('dist')", **environment)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (project / "dist").glob("*.whl")
    return zipfile.ZipFile(wheel)


def test_the_sdist_holds_all_that_a_build_needs_and_no_more(tmp_path):
    project = copy_project(tmp_path / "project")
    for leftover in ("gan_fast/_C.so", "build/lib/old.py", "runs/a/weights.safetensors"):
        (project / leftover).parent.mkdir(parents=True, exist_ok=True)
        (project / leftover).touch()
    built = call_backend(project, "build_sdist('dist')")
    assert built.returncode == 0, built.stdout + built.stderr
    (archive,) = (project / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        top = tar.getnames()[0].split("/")[0]
        names = {name.removeprefix(f"{top}/") for name in tar.getnames()}
        metadata = tar.extractfile(f"{top}/PKG-INFO").read().decode()
    assert {
        *("CMakeLists.txt", "LICENSE", "README.md", "conftest.py", "csrc/module.cpp", "csrc/common/cuda/embedded.h"),
        *("build_backend/backend.py", "cmake/device_code.cmake", "cmake/embed_device_code.py", "gan_fast/py.typed"),
        *("setup.py", "tests/packaging/test_distributions.py"),
    } <= names  # fmt: skip
    unwanted = [
        name for name in names if name.startswith(("build/", "runs/", "dist/")) or name.endswith((".so", ".pyc"))
    ]
    assert unwanted == []
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert sources <= names
    assert "Requires-Dist: torch>=2.11\n" in metadata


def test_the_wheel_holds_the_package_and_nothing_beside_it(small_project):
    with wheel_of(small_project) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        built_for = json.loads(wheel.read("gan_fast/_built_for.json"))
        entry_points = wheel.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    dist_info = next(name for name in names if name.endswith("/METADATA")).removesuffix("METADATA")
    packaged = {name for name in names if not name.startswith(dist_info)}
    python = {p.relative_to(small_project).as_posix() for p in (small_project / "gan_fast").rglob("*.py")}
    typing = {"gan_fast/py.typed", "gan_fast/_C.pyi"}
    assert packaged == python | typing | {f"gan_fast/{EXTENSION}", "gan_fast/_built_for.json"}
    assert f"{dist_info}licenses/LICENSE" in names
    assert built_for == {"torch": torch.__version__}
    major, minor = torch.__version__.split(".")[:2]
    assert f"Requires-Dist: torch=={major}.{minor}.*\n" in metadata
    assert "gan-fast = gan_fast.cli:main" in entry_points


def test_a_second_build_remembers_no_ninja_no_module_and_no_setting(small_project, tmp_path):
    """Pip's isolated environment, with the ninja that CMake remembers, is gone at the second build."""
    isolated = tmp_path / "isolated"
    isolated.mkdir()
    os.symlink(native_build.find_tool("ninja"), isolated / "ninja")
    (small_project / "gan_fast" / "outdated.py").touch()
    with wheel_of(small_project, PATH=f"{isolated}{os.pathsep}{os.environ['PATH']}") as wheel:
        assert "gan_fast/outdated.py" in wheel.namelist()
    assert any(str(isolated) in cache.read_text() for cache in small_project.glob("build/temp*/CMakeCache.txt"))
    shutil.rmtree(isolated)
    (small_project / "gan_fast" / "outdated.py").unlink()
    with wheel_of(small_project) as wheel:
        assert "gan_fast/outdated.py" not in wheel.namelist()
    refused = call_backend(small_project, "build_wheel('dist')", GAN_FAST_BUILD="gpu")
    assert refused.returncode != 0, "the environment was read once and remembered"


def test_in_place_and_editable_builds_put_the_extension_into_the_source_folder(small_project, tmp_path):
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=small_project, check=True)
    built = [small_project / "gan_fast" / name for name in (EXTENSION, "_built_for.json")]
    assert all(file.is_file() for file in built)
    for file in built:
        file.unlink()
    editable = call_backend(small_project, "build_editable('dist')")
    assert editable.returncode == 0, editable.stdout + editable.stderr
    assert all(file.is_file() for file in built)


def test_a_source_file_without_a_role_stops_the_build(small_project):
    (small_project / "csrc" / "swish").mkdir()
    (small_project / "csrc" / "swish" / "helpers.cpp").touch()
    built = call_backend(small_project, "build_wheel('dist')")
    assert built.returncode != 0
    assert "csrc/swish/helpers.cpp has no role: expected csrc/swish/swish.cpp" in " ".join(
        built.stdout.split() + built.stderr.split()
    )
