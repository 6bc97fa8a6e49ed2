"""The Triton kernels compile for cards that are not here: tensor-core instructions, registers, vector loads."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_fast.triton import plans

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: CPU builds of torch do not bring it"
)

# The tensor-core product each architecture must use.
PRODUCTS = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
# tf32 products want what is summed over, here the pixels, to lie densely: on sm_90 and sm_100 the float32 weight
# gradient gathers it four bytes at a time. The rule measures whether it is any use.
NARROW_LOADS = {("weight_gradient", "float32", 90), ("weight_gradient", "float32", 100)}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled here and now, not found in somebody's cache."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))


def planned(kernel: str, arch: int, dtype: torch.dtype, channels: int, size: int = 32) -> plans.Plan:
    def meta(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=kind, device="meta")

    n, target, wide = 8, plans.Target((arch // 10, arch % 10)), torch.float32
    x, w, s = meta(n, channels, size, size), meta(channels, channels, 3, 3), meta(n, channels, kind=wide)
    noise, bias = meta(n, 1, size, size, kind=wide), meta(channels, kind=wide)
    if kernel == "forward":
        act: dict[str, Any] = {"act": 2, "alpha": 0.2, "gain": 2**0.5, "clamp": 256.0}
        return plans.product(x, w, s, s, target, padding=1, noise=noise, bias=bias, **act)
    if kernel == "input_gradient":
        return plans.product(x, w, s, s, target, padding=1, transposed=True, other=x)
    if kernel == "weight_gradient":
        return plans.weight_gradient(x, x, s, s, target, size=3, padding=1)
    return plans.epilogue_gradient(x, x, noise, target, act=2, alpha=0.2, gain=2**0.5)


def variants() -> Iterator[Any]:
    """Every product in bfloat16 on every architecture, and in float32 on sm_90; few channels, in float16.

    A compilation takes one to two seconds: the forward everywhere and the gradients on sm_90 are tried in every run.
    """
    for kernel in ("forward", "input_gradient", "weight_gradient"):
        for arch, dtype, channels in (*((arch, "bfloat16", 512) for arch in PRODUCTS), (90, "float32", 256)):
            often = dtype == "bfloat16" and (arch == 90 or kernel == "forward")
            marks = () if often else (pytest.mark.slow,)
            yield pytest.param(
                kernel, arch, getattr(torch, dtype), channels, id=f"{kernel}-sm_{arch}-{dtype}-{channels}", marks=marks
            )
    yield pytest.param("forward", 90, torch.float16, 64, id="forward-sm_90-float16-64")


@pytest.mark.parametrize(("kernel", "arch", "dtype", "channels"), list(variants()))
def test_products_use_tensor_cores_and_stay_in_registers(
    kernel: str, arch: int, dtype: torch.dtype, channels: int
) -> None:
    from gan_fast.triton import ahead_of_time

    done = ahead_of_time.compile_plan(planned(kernel, arch, dtype, channels), arch)
    assert done.product == PRODUCTS[arch]
    assert (done.stack_bytes, done.local_bytes, done.local_instructions) == (0, 0, 0)
    assert done.shared_bytes <= {80: 163, 90: 227, 100: 227}[arch] * 1024
    wide = sum(count for name, count in done.loads.items() if name.startswith("LDGSTS") and name.endswith(".128"))
    narrow = sum(count for name, count in done.loads.items() if name.startswith("LDGSTS")) - wide
    if (kernel, str(dtype).removeprefix("torch."), arch) not in NARROW_LOADS:
        # what is not 16 bytes wide is a step's vector of styles
        assert wide >= 4 and narrow <= wide / 4, done.loads


def test_epilogue_gradient_loads_vectors() -> None:
    from gan_fast.triton import ahead_of_time

    done = ahead_of_time.compile_plan(planned("epilogue_gradient", 90, torch.bfloat16, 512), 90)
    assert (done.stack_bytes, done.local_bytes, done.local_instructions) == (0, 0, 0)
    assert done.loads.get("LDG.E.128", 0) >= 8 and done.registers <= 168


def test_float32_without_tf32_has_no_tensor_core(monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_fast.triton import ahead_of_time

    monkeypatch.setattr(plans, "precision", lambda dtype: "ieee")
    plan = planned("forward", 90, torch.float32, 64)
    assert plan.arguments["PRECISION"] == "ieee"
    done = ahead_of_time.compile_plan(plan, 90)
    assert done.product == "none" and done.local_instructions == 0
