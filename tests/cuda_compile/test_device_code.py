"""Every .cu file compiles for every architecture, keeps everything in registers, and is taken by NVRTC as embedded."""

from __future__ import annotations

import concurrent.futures
import functools
import tempfile
from pathlib import Path

import pytest

from cuda_compile import compilers

SOURCES = {source.stem: source for source in compilers.sources()}
NO_PTXAS = "no ptxas: neither a CUDA toolkit on PATH nor triton"

# Kernels that may use local memory, with the reason as a comment: kernel -> bytes.
LOCAL_MEMORY_BYTES: dict[str, int] = {}


def resources(name: str, arch: str) -> dict[str, compilers.Resources]:
    """ptxas's report, from nvcc where it is and otherwise from NVRTC's PTX."""
    return all_resources()[name, arch]


@functools.cache
def all_resources() -> dict[tuple[str, str], dict[str, compilers.Resources]]:
    """Every report, two compilers at a time."""
    pairs = [(name, arch) for name in SOURCES for arch in compilers.ARCHITECTURES]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(pairs, pool.map(lambda pair: compile_one(*pair), pairs), strict=True))


def compile_one(name: str, arch: str) -> dict[str, compilers.Resources]:
    with tempfile.TemporaryDirectory() as folder:
        if compilers.nvcc() is not None:
            return compilers.compile_with_nvcc(SOURCES[name], arch, Path(folder))
        ptx = compilers.nvrtc_ptx(name, compilers.flatten(SOURCES[name]), arch.replace("sm_", "compute_"))
        return compilers.assemble(ptx, arch, Path(folder))


def test_there_is_device_code() -> None:
    assert {
        "adversarial_loss",
        "bias_act",
        "binary_cross_entropy",
        "filtered_lrelu",
        "gradient_penalty",
        "l1_distance",
        "softplus",
        "upfirdn2d",
    } <= set(SOURCES)


@pytest.mark.slow  # minutes of nvcc for all kernels and architectures
@pytest.mark.parametrize("arch", compilers.ARCHITECTURES)
@pytest.mark.parametrize("name", SOURCES)
def test_kernels_stay_in_registers(name: str, arch: str) -> None:
    if compilers.nvcc() is None and (compilers.nvrtc_missing() is not None or compilers.ptxas() is None):
        pytest.skip(f"no nvcc on PATH, and {compilers.nvrtc_missing() or NO_PTXAS}")
    kernels = resources(name, arch)
    assert kernels
    spilling = {
        kernel: r
        for kernel, r in kernels.items()
        if r.stack_bytes > LOCAL_MEMORY_BYTES.get(kernel, 0) or r.spill_bytes > LOCAL_MEMORY_BYTES.get(kernel, 0)
    }
    assert not spilling
    # four blocks of 256 threads on a multiprocessor hide the latency of memory
    assert all(r.registers <= 128 and r.shared_bytes <= 48 * 1024 for r in kernels.values())


@pytest.mark.parametrize("name", SOURCES)
def test_nvrtc_compiles_the_embedded_source(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if compilers.nvrtc_missing() is not None:
        pytest.skip(str(compilers.nvrtc_missing()))
    from gan_fast import nvrtc

    monkeypatch.setenv("GAN_FAST_CACHE", str(tmp_path))
    cubin = nvrtc.compile(name, compilers.flatten(SOURCES[name]), 9, 0)
    assert cubin[:4] == b"\x7fELF"
    if compilers.nvcc() is not None:
        # names are plain: the launcher finds kernels by them
        assert all(kernel.encode() in cubin for kernel in resources(name, "sm_90"))
