"""The decisions of the build, each by itself: which torch, what to ask pip for, how many jobs, which configuration."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from build_backend import backend, native_build, torch_environment
from build_backend.torch_environment import BuildError
from gan_fast import _build

GIB = 2**30
ROOT = Path(__file__).parents[2]


def fake_torch(site_packages: Path, version: str) -> Path:
    folder = site_packages / "torch"
    (folder / "include" / "pybind11").mkdir(parents=True)
    (folder / "include" / "pybind11" / "pybind11.h").touch()
    (folder / "lib").mkdir()
    (folder / "version.py").write_text(f"from typing import Optional\n\n__version__ = '{version}'\ncuda = None\n")
    return folder


@pytest.fixture
def site_packages(tmp_path, monkeypatch):
    """An environment of its own, off the import path, as pip's isolation leaves it."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(torch_environment, "environment_site_packages", lambda: iter([tmp_path]))
    return tmp_path


def test_the_running_environment_s_torch_is_found_without_the_import_path():
    """Under pip's isolation site-packages are off sys.path; their torch is still the one that will run gan_fast."""
    script = (
        "import sys; sys.path = [p for p in sys.path if '-packages' not in p]\n"
        "from build_backend.torch_environment import find_torch\n"
        "found = find_torch(); print(found.directory, found.version, found.cxx11_abi)\n"
        "assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONSAFEPATH": ""})  # fmt: skip
    assert shown.stdout.split() == [
        str(Path(torch.__file__).parent), torch.__version__, str(torch.compiled_with_cxx11_abi())
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "requirement"),
    [("2.11.0", "torch==2.11.*"), ("2.14.1+cpu", "torch==2.14.*"), ("3.0.0a0+git", "torch==3.0.*")],
)
def test_an_installed_torch_is_built_against_and_satisfies_the_wheel(site_packages, version, requirement):
    folder = fake_torch(site_packages, version)
    assert torch_environment.find_torch() == (folder, version)
    assert torch_environment.runtime_requirement(torch_environment.find_torch()) == requirement
    assert not any(name.startswith("torch") for name in backend.get_requires_for_build_wheel())


def test_without_torch_the_build_environment_gets_one(site_packages):
    assert "torch>=2.11" in backend.get_requires_for_build_wheel()
    assert "torch>=2.11" in backend.get_requires_for_build_editable()
    assert backend.get_requires_for_build_sdist() == []


def test_the_import_path_comes_before_the_environment(site_packages, tmp_path_factory, monkeypatch):
    fake_torch(site_packages, "2.13.0")
    first = tmp_path_factory.mktemp("path")
    fake_torch(first, "2.12.0")
    monkeypatch.setattr(sys, "path", [str(first)])
    assert torch_environment.find_torch().version == "2.12.0"


def test_a_torch_that_is_too_old_is_named_and_left_alone(site_packages, capsys):
    fake_torch(site_packages, "2.9.1+cu128")  # as strings, "2.9" > "2.11"
    with pytest.raises(
        SystemExit, match=r"needs torch>=2\.11, but .* has 2\.9\.1\+cu128; run: pip install --upgrade torch"
    ):
        backend.get_requires_for_build_wheel()


def test_pybind11_is_asked_for_only_where_torch_brings_none(site_packages):
    folder = fake_torch(site_packages, "2.14.0")
    assert not any(name.startswith("pybind11") for name in backend.get_requires_for_build_wheel())
    (folder / "include" / "pybind11" / "pybind11.h").unlink()
    assert "pybind11>=2.13" in backend.get_requires_for_build_wheel()


def test_building_without_torch_says_so_in_one_line(site_packages):
    with pytest.raises(SystemExit, match=r"^gan_fast: .*has none; run: pip install torch .*$"):
        backend.build_wheel("unused")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_tools_that_do_not_run_or_are_old_are_passed_over(tmp_path, monkeypatch):
    """A cmake or ninja script of pip's is on PATH but broken under isolation."""
    folders = {name: tmp_path / name for name in ("broken", "old", "good")}
    for folder in folders.values():
        folder.mkdir()
    script(folders["broken"] / "cmake", "echo 'ModuleNotFoundError: No module named cmake' >&2; exit 1")
    script(folders["old"] / "cmake", "echo cmake version 3.9.6")  # as strings, "3.9" > "3.18"
    good = script(folders["good"] / "cmake", "echo cmake version 3.18.4")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", os.pathsep.join(str(folders[name]) for name in ("broken", "old", "good")))
    assert native_build.find_tool("cmake") == good
    monkeypatch.setenv("PATH", os.pathsep.join(str(folders[name]) for name in ("broken", "old")))
    assert native_build.find_tool("cmake") is None
    assert {"cmake>=3.18", "ninja>=1.10"} <= set(native_build.missing_requirements(None))


@pytest.mark.parametrize(
    ("cores", "memory", "max_jobs", "jobs"),
    [
        (2, 64 * GIB, None, 2),  # cores limit
        (16, 7 * GIB, None, 3),  # memory limits
        (16, GIB, None, 1),  # never none
        (8, None, None, 8),  # a system that does not tell its memory
        (2, GIB, "6", 6),  # asked for
        (2, 64 * GIB, " ", 2),
    ],
)
def test_jobs_are_limited_by_cores_and_memory(cores, memory, max_jobs, jobs):
    environment = {} if max_jobs is None else {"MAX_JOBS": max_jobs}
    assert native_build.job_limit(cores, memory, environment) == jobs


@pytest.mark.parametrize("value", ["0", "two", "-1"])
def test_a_bad_max_jobs_is_refused(value):
    with pytest.raises(BuildError, match=r"MAX_JOBS is .*; expected a whole number"):
        native_build.job_limit(2, None, {"MAX_JOBS": value})


def test_memory_is_what_the_kernel_and_the_container_leave(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  16777216 kB\nMemAvailable:    8388608 kB\n")
    assert native_build.available_memory(tmp_path, tmp_path) == 8 * GIB
    (tmp_path / "memory.current").write_text(f"{GIB}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert native_build.available_memory(tmp_path, tmp_path) == 8 * GIB
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n")
    assert native_build.available_memory(tmp_path, tmp_path) == 3 * GIB
    assert native_build.available_memory(tmp_path / "none", tmp_path / "none") is None


class TestImportCheck:
    """`gan_fast._build.check`: what importing gan_fast says when the extension does not fit."""

    @pytest.fixture
    def package(self, tmp_path):
        package = tmp_path / "gan_fast"
        package.mkdir()
        (package / f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}").touch()
        (package / "_built_for.json").write_text(json.dumps({"torch": "2.14.1+cu130"}))
        return package

    @pytest.mark.parametrize("version", ["2.14.1+cu130", "2.14.0", "2.14.2+cpu"])
    def test_the_same_minor_version_fits_cpu_or_cuda(self, package, version):
        _build.check(package, version)

    @pytest.mark.parametrize("version", ["2.13.0", "2.15.0.dev20260101", "2.1.4", "3.14.1"])
    def test_another_torch_gives_one_line(self, package, version):
        with pytest.raises(ImportError) as caught:
            _build.check(package, version)
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith(f"gan_fast was built for torch 2.14.1+cu130, but this is torch {version}; run: ")
        assert "pip install --no-deps" in line

    def test_a_source_folder_that_is_not_built_says_how(self, package):
        next(package.glob("_C*")).unlink()
        (package.parent / "CMakeLists.txt").touch()
        with pytest.raises(ImportError, match=rf"not built .*; run: .* pip install --no-deps -e {package.parent}$"):
            _build.check(package)

    def test_an_extension_for_another_python_is_named(self, package):
        next(package.glob("_C*")).rename(package / "_C.cpython-37m-x86_64-linux-gnu.so")
        with pytest.raises(
            ImportError, match=r"for another Python \(_C\.cpython-37m-x86_64-linux-gnu\.so; this is 3\."
        ):
            _build.check(package)

    def test_a_lost_note_is_not_taken_for_a_fit(self, package):
        (package / "_built_for.json").unlink()
        with pytest.raises(ImportError, match=r"_built_for\.json is missing"):
            _build.check(package)


class TestCMake:
    """What CMake makes of the sources, without compiling them."""

    @staticmethod
    def configure(build_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
        cmake, ninja = native_build.find_tool("cmake"), native_build.find_tool("ninja")
        if not cmake or not ninja:
            pytest.skip("cmake or ninja is not installed")
        if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
            pytest.skip("Python's headers are not installed")
        command = [cmake, "-S", ROOT, "-B", build_dir, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        return subprocess.run(
            [*map(str, command), f"-DPython_EXECUTABLE={sys.executable}", *options],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_works_alone_and_links_the_wide_variants_last(self, tmp_path):
        """Inline functions compiled for AVX-512 must not be the copy that the linker keeps."""
        configured = self.configure(tmp_path)
        assert configured.returncode == 0, configured.stderr
        link = next(
            line for line in (tmp_path / "build.ninja").read_text().splitlines() if line.startswith("build gan_fast/_C")
        )
        places = [
            [i for i, word in enumerate(link.split()) if part in word] for part in ("host.dir", "cpu_DEFAULT.dir")
        ]
        for variant in ("AVX2", "AVX512"):
            here = [i for i, word in enumerate(link.split()) if f"cpu_{variant}.dir" in word]
            if here:
                places.append(here)
        assert [i for group in places for i in group] == sorted(i for group in places for i in group)

    def test_at_vec_is_told_the_instruction_set(self, tmp_path):
        """The flags alone leave at::vec::Vectorized scalar; and without -fopenmp at::parallel_for is serial."""
        assert self.configure(tmp_path).returncode == 0
        entries = json.loads((tmp_path / "compile_commands.json").read_text())
        commands = [entry["command"] for entry in entries]
        assert all(" -fopenmp " in command for command in commands)
        variants = {
            name: [c for c in commands if f"-DCPU_CAPABILITY_{name} " in c] for name in ("DEFAULT", "AVX2", "AVX512")
        }
        assert variants["DEFAULT"]
        assert all("-mavx" not in command for command in variants["DEFAULT"])
        for name, flag in (("AVX2", "-mavx2"), ("AVX512", "-mavx512f")):
            assert all(flag in command and f"-DCPU_CAPABILITY={name} " in command for command in variants[name])

    def test_cuda_demanded_without_nvcc_says_what_to_do(self, tmp_path):
        configured = self.configure(tmp_path, "-DGAN_FAST_BUILD=cuda", "-DGAN_FAST_NVCC=")
        assert configured.returncode != 0
        assert "GAN_FAST_BUILD=auto" in " ".join(configured.stderr.split())

    def test_an_unknown_kind_of_build_is_refused(self, tmp_path):
        configured = self.configure(tmp_path, "-DGAN_FAST_BUILD=gpu")
        assert configured.returncode != 0
        assert "expected auto, cpu or cuda" in " ".join(configured.stderr.split())
