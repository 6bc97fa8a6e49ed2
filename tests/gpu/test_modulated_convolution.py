"""Modulated convolution on a card: the interpreter's cases, graphs, repeatability, and what the rule remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import gan_fast
from gan_fast import ops, triton
from gan_fast.triton import rule
from triton_kernels.cases import CASES, Case, compare, inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    reason = triton.why_not(torch.device("cuda:0"))
    if reason is not None:
        pytest.skip(f"the Triton kernels cannot run: {reason}")
    monkeypatch.setenv("GAN_FAST_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    rule.forget()
    yield
    rule.forget()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernels_agree_with_the_reference(case: Case, order: torch.memory_format) -> None:
    from gan_fast.triton import launch

    torch.use_deterministic_algorithms(True)  # empty tensors are NaN
    try:
        list(compare(case, launch, inputs(case, "cuda", order)))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_large_tiles_agree_with_the_reference(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that fill the largest tiles; float32 with tf32 as torch allows it by default."""
    from gan_fast.triton import launch

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    case = Case(8, 256, 256, 64, 64, 3, 1, dtype=str(dtype).removeprefix("torch."))
    # tf32 keeps 10 bits of mantissa where float32 has 23, and the bound is 64 eps of float32
    factor = 2.0**13 / 64 if dtype == torch.float32 else 1.0
    list(compare(case, launch, inputs(case, "cuda"), factor))


def layer(dtype: torch.dtype = torch.bfloat16) -> tuple[list[Tensor], Callable[..., Tensor]]:
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda").to(kind).requires_grad_()

    x = draw(4, 64, 32, 32, kind=dtype).detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    leaves = [x, draw(96, 64, 3, 3), draw(4, 64), draw(32, 32), draw(96)]

    def call(x: Tensor, w: Tensor, s: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        return ops.modulated_conv2d(x, w, s, noise, padding=1, bias=bias, act="lrelu", clamp=256.0)

    return leaves, call


def test_replays_are_the_first_call_again() -> None:
    """By the compiled kernel's handle: bit for bit, on other streams; tensors that are not aligned are not replayed."""
    from gan_fast.triton import launch

    case = Case(2, 16, 24, 8, 8, 3, 1, dtype="bfloat16")
    t = inputs(case, "cuda")
    names = ("x", "w", "s", "d", "noise", "bias")
    numbers = (1, 2, 0.2, 1.3, -1.0)
    launch.forget()
    first = launch.forward(*(t[n] for n in names), *numbers)
    assert len(launch._replays) == 1
    assert torch.equal(launch.forward(*(t[n] for n in names), *numbers), first)
    x = t["x"]
    place = torch.empty(x.numel() + 1, dtype=x.dtype, device="cuda")
    shifted = place.as_strided(x.shape, x.stride(), 1).copy_(x)
    unaligned = launch.forward(shifted, *(t[n] for n in names[1:]), *numbers)  # another compiled kernel
    torch.testing.assert_close(unaligned, first, rtol=2e-2, atol=2e-2)
    assert len(launch._replays) == 1
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        later = (x * 2).contiguous(memory_format=torch.channels_last)
        got = launch.forward(later, *(t[n] for n in names[1:]), *numbers)
    side.synchronize()
    torch.testing.assert_close(got, launch.forward(x * 2, *(t[n] for n in names[1:]), *numbers), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["auto", "triton", "shared"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layer_and_its_second_order(mode: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path length's kind of step: gradients in the styles, and of their square in everything."""
    monkeypatch.setenv(rule.VARIABLE, mode)
    leaves, call = layer(dtype)

    def step(leaves: list[Tensor]) -> list[Tensor]:
        y = call(*leaves)
        (g,) = torch.autograd.grad(y.double().square().sum() / y.numel(), leaves[2], create_graph=True)
        return [y, g, *torch.autograd.grad(g.double().square().sum(), leaves)]

    found = step(leaves)
    with gan_fast.reference_mode():
        truth = step([t.detach().double().requires_grad_() for t in leaves])
    for got, exact in zip(found, truth, strict=True):
        error = float((got.double() - exact).abs().max() / exact.abs().max())
        # against the largest entry; bfloat16 rounds five times on the way to the second order (H100: up to 0.058)
        assert error < (1e-4 if dtype == torch.float32 else 8e-2)
    assert bool(rule.choices()) == (mode == "auto")


def test_graph_capture_uses_what_ran_before() -> None:
    leaves, call = layer()

    def step() -> list[Tensor]:
        y = call(*leaves)
        return [y, *torch.autograd.grad(y, leaves, torch.ones_like(y))]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    remembered = rule.choices()
    assert {c.key.split()[0] for c in remembered} == {
        "forward", "input-gradient", "weight-gradient", "epilogue-gradient",
    }  # fmt: skip
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    assert rule.choices() == remembered
    with torch.no_grad():
        leaves[0].mul_(0.5)
    graph.replay()
    for got, expected in zip(captured, step(), strict=True):
        assert torch.equal(got, expected)


def test_results_repeat_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rule.VARIABLE, "triton")
    leaves, call = layer()
    y = call(*leaves)
    first = torch.autograd.grad(y, leaves, torch.ones_like(y), retain_graph=True)
    for _ in range(10):
        again = torch.autograd.grad(y, leaves, torch.ones_like(y), retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_nothing_waits_for_the_card_after_the_first_use() -> None:
    leaves, call = layer()
    y = call(*leaves)
    torch.autograd.grad(y, leaves, torch.ones_like(y))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = call(*leaves)
        torch.autograd.grad(y, leaves, torch.ones_like(y))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_compiles_whole() -> None:
    leaves, call = layer()
    compiled = torch.compile(call, fullgraph=True)
    y, expected = compiled(*leaves), call(*leaves)
    torch.testing.assert_close(y, expected, rtol=0.02, atol=0.02)
    dy = torch.randn_like(y)
    for got, exact in zip(torch.autograd.grad(y, leaves, dy), torch.autograd.grad(expected, leaves, dy), strict=True):
        torch.testing.assert_close(got, exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))
