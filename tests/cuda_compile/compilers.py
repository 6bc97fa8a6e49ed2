"""Compiles device code with whatever is here: nvcc, NVRTC through cuda-bindings, the ptxas of nvcc or of triton."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")


@dataclass(frozen=True)
class Resources:
    """What ptxas says of one kernel."""

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


def sources() -> list[Path]:
    """Every .cu file of the package."""
    return sorted(CSRC.glob("*/*.cu"))


def nvcc() -> str | None:
    return shutil.which("nvcc")


@functools.cache
def ptxas() -> str | None:
    """nvcc's ptxas, else the one triton carries."""
    found = shutil.which("ptxas")
    spec = importlib.util.find_spec("triton")
    if found is None and spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "backends" / "nvidia" / "bin"
        found = next((str(p) for name in ("ptxas-blackwell", "ptxas") if (p := carried / name).exists()), None)
    return found


@functools.cache
def nvrtc_missing() -> str | None:
    """Why NVRTC cannot be used, or None."""
    from gan_fast import nvrtc

    try:
        nvrtc.version()
    except RuntimeError as error:
        return str(error)
    return None


def flatten(source: Path) -> str:
    """What the build embeds for NVRTC: the source with its includes pasted in."""
    spec = importlib.util.spec_from_file_location("embed_device_code", ROOT / "cmake" / "embed_device_code.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.flatten(source.resolve(), CSRC))


def assemble(ptx: str, arch: str, folder: Path) -> dict[str, Resources]:
    """ptxas's report on a PTX text."""
    path = folder / "kernel.ptx"
    path.write_text(ptx)
    command = [str(ptxas()), "-v", f"-arch={arch}", str(path), "-o", str(folder / "kernel.cubin")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return parse(done.stdout + done.stderr)


def compile_with_nvcc(source: Path, arch: str, folder: Path) -> dict[str, Resources]:
    """ptxas's report on a source compiled by nvcc for one architecture."""
    flags = ["-std=c++17", "-O3", f"-arch={arch}", "-I", str(CSRC), "-Xptxas", "-v", "-Werror", "all-warnings"]
    command = [str(nvcc()), "-cubin", *flags, str(source), "-o", str(folder / f"{arch}.cubin")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return parse(done.stdout + done.stderr)


def parse(report: str) -> dict[str, Resources]:
    kernels: dict[str, Resources] = {}
    pattern = (
        r"Compiling entry function '(\w+)' for '\w+'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers([^\n]*)"
    )
    for name, stack, stores, loads, registers, rest in re.findall(pattern, report, re.DOTALL):
        shared = re.search(r"(\d+) bytes smem", rest)
        kernels[name] = Resources(int(registers), int(stack), int(stores) + int(loads), int(shared[1]) if shared else 0)
    return kernels


def nvrtc_ptx(name: str, source: str, arch: str) -> str:
    """PTX of a source for a virtual architecture such as compute_90."""
    from gan_fast import nvrtc

    bindings = nvrtc._bindings()
    program = nvrtc._call(bindings, "nvrtcCreateProgram", source.encode(), f"{name}.cu".encode(), 0, [], [])
    options = [f"--gpu-architecture={arch}".encode(), *(o.encode() for o in nvrtc.OPTIONS)]
    nvrtc._call(bindings, "nvrtcCompileProgram", program, len(options), options)
    text = bytearray(nvrtc._call(bindings, "nvrtcGetPTXSize", program))
    nvrtc._call(bindings, "nvrtcGetPTX", program, text)
    return bytes(text).rstrip(b"\0").decode()
