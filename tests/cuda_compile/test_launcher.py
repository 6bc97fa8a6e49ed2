"""The launcher without a card: its declarations against NVIDIA's cuda.h, its calls against a driver that logs them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.utils.cpp_extension

from cuda_compile import compilers

HERE = Path(__file__).resolve().parent
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def cuda_include() -> Path | None:
    """A folder with NVIDIA's cuda.h: the toolkit's, or the one that comes with torch's CUDA wheels or with triton."""
    nvcc = compilers.nvcc()
    folders = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"]
    if nvcc is not None:
        folders.append(Path(nvcc).resolve().parents[1] / "include")
    site = Path(torch.__file__).parents[1]
    folders += [*site.glob("nvidia/cu*/include"), *site.glob("nvidia/cuda_runtime/include")]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        folders.append(Path(triton.origin).parent / "backends" / "nvidia" / "include")
    return next((f for f in folders if (f / "cuda.h").is_file()), None)


pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++) on PATH"),
    pytest.mark.skipif(
        cuda_include() is None, reason="no cuda.h: neither a CUDA toolkit nor torch's CUDA wheels nor triton"
    ),
]


def compile_cpp(*arguments: str) -> None:
    command = [str(COMPILER), "-std=c++20", "-w", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def torch_flags() -> list[str]:
    return [f"-I{compilers.CSRC}", *(f"-isystem{f}" for f in torch.utils.cpp_extension.include_paths())]


def test_declarations_are_those_of_cuda_h(tmp_path: Path) -> None:
    entries = re.findall(r'find\(d\.(\w+), "(\w+)"\)', (compilers.CSRC / "common/cuda/driver.cpp").read_text())
    declared = re.findall(r"Result \(\*(\w+)\)", (compilers.CSRC / "common/cuda/driver.h").read_text())
    assert [name for name, _ in entries] == declared
    lines = "".join(f'ENTRY({name}, "{symbol}")\n' for name, symbol in entries)
    source = tmp_path / "check.cpp"
    source.write_text((HERE / "check_driver.cpp").read_text() + lines)
    compile_cpp("-fsyntax-only", f"-isystem{cuda_include()}", *torch_flags(), str(source))


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launcher")
    lib = Path(torch.__file__).parent / "lib"
    compile_cpp(
        "-shared",
        "-fPIC",
        f"-isystem{cuda_include()}",
        str(HERE / "fake_driver.cpp"),
        "-o",
        str(folder / "libcuda.so.1"),
    )
    sources = [
        str(HERE / "launcher_harness.cpp"),
        *(str(compilers.CSRC / f"common/cuda/{n}.cpp") for n in ("driver", "launcher")),
    ]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    libraries = [f"-L{lib}", f"-Wl,-rpath,{lib}", "-ltorch_cpu", "-lc10", "-ldl"]
    compile_cpp(abi, *torch_flags(), *sources, *libraries, "-o", str(folder / "harness"))
    return folder


def run(harness: Path, *arguments: str, told: str = "", driver: bool = True) -> list[str]:
    environment = {**os.environ, "FAKE_CUDA": told, "LD_LIBRARY_PATH": str(harness) if driver else ""}
    done = subprocess.run(
        [str(harness / "harness"), *arguments], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.splitlines()


def test_loads_once_a_device_and_launches_in_its_context(harness: Path) -> None:
    launch = (
        "launch {f} grid {grid} block {block} 1 1 shared {shared} stream {stream} "
        "context {context} value {value} extra 0"
    )
    out = run(harness)
    assert [line for line in out if not line.startswith("push")] == [
        "retain 10",
        "load fatbin of op",
        "kernel kernel_f32 of 7",
        "occupancy 71 256 0",
        "resident 396",
        launch.format(f=71, grid="4 5 6", block=256, shared=1024, stream=900, context=110, value=42),
        launch.format(f=71, grid="1 1 1", block=32, shared=0, stream=900, context=110, value=43),
        "retain 11",
        "kernel kernel_f32 of 7",
        launch.format(f=71, grid="2 1 1", block=64, shared=0, stream=901, context=111, value=44),
        "kernel kernel_f64 of 7",
        launch.format(f=71, grid="3 1 1", block=96, shared=0, stream=900, context=110, value=45),
        "served op on 0 sm_121 by fatbin",
        "served op on 1 sm_121 by fatbin",
        "error gan_fast: kernel_f32 cannot run on cpu",
    ]


@pytest.mark.parametrize(("op", "told"), [("op", "no_image"), ("bare", "")])
def test_a_card_without_an_image_gets_one_from_nvrtc(harness: Path, op: str, told: str) -> None:
    out = run(harness, op, "with compiler", told=told)
    assert out.count(f"compile {op} 'source of {op}' 12 1") == 1
    assert out.count(f"load cubin of {op}") == 1
    assert sum(line.startswith("launch 81 ") for line in out) == 4
    assert f"served {op} on 0 sm_121 by nvrtc" in out


def test_errors_say_what_to_do(harness: Path) -> None:
    assert "no compiler at hand: import gan_fast" in run(harness, "bare")[-1]
    assert "built without the device code of nothing" in run(harness, "nothing")[-1]
    captured = run(harness, told="capturing")
    assert "warm-up" in captured[-1] and not any(line.startswith("load") for line in captured)
    assert run(harness, told="bad_launch")[-1] == (
        "error gan_fast: launching kernel_f32 failed with CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES (as told)"
    )
    assert "cuInit gives CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" in run(harness, told="old")[-1]


def test_without_a_driver_the_error_says_so(harness: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a CUDA driver")
    assert "the CUDA driver was not found (libcuda.so.1" in run(harness, driver=False)[-1]
