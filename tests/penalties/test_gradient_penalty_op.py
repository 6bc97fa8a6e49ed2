"""`torch.ops.gan_fast.gradient_penalty`: every kernel against the reference in float64, to second order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_fast.reference import gradient_penalty as reference
from gan_fast.reference.gradient_penalty import Kind
from support import strategies
from support.checks import check_bitwise_repeatable, check_derivatives, check_op
from support.kernels import CAPABILITIES, cpu_capability, needs_kernels
from support.reference_runner import agree, poisoned_memory
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import DTYPES, assert_close

pytestmark = needs_kernels
OPS = ("gradient_penalty", "gradient_penalty_backward")


def op(kind: int, center: float, weight: float):
    return lambda g: torch.ops.gan_fast.gradient_penalty(g, int(kind), center, weight)


def truth(kind: int, center: float, weight: float):
    return lambda g: reference.gradient_penalty(g, kind, center, weight)


def check(g: Tensor, kind: Kind, center: float, *, second: bool = True) -> None:
    """A norm near the center leaves a difference that holds the norm's error: judged against norm and center."""
    exact = g.double()
    largest = float(exact.square().reshape(len(g), -1).sum(1).max()) if g.numel() else 0.0
    magnitude = 3.0 * torch.tensor([largest, center**2]).max() + largest
    agree(
        op(kind, center, 3.0),
        truth(kind, center, 3.0),
        [g],
        kind="reduced",
        value_magnitude=magnitude,
        gradient_magnitude=30.0 * float(exact.abs().max()) / len(g) if g.numel() else 0.0,
        second=second,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_reference(dtype, kind, layout, device):
    for shape in [(3, 2, 5, 7), (1, 3, 4, 4), (6, 1), (5,), (2, 3, 33, 65)]:
        g = lay_out(draw_values(shape, "normal", 1, dtype), layout).to(device)
        check(g, kind, 2.0)


@given(
    dtype=strategies.dtypes,
    shape=strategies.shapes(min_dims=1),
    kind=st.sampled_from(Kind),
    center=st.sampled_from((0.0, 0.5, 7.0)),
    values=st.sampled_from(("normal", "wide", "ties", "zeros")),
    seed=strategies.seeds,
    layout=strategies.layouts,
)
def test_any_shape_and_layout(dtype, shape, kind, center, values, seed, layout):
    check(lay_out(draw_values(shape, values, seed, dtype), layout), kind, center, second=dtype == torch.float64)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_instruction_set(capability, dtype):
    """Rows below, at and above one vector, one unrolled loop, one block and one chunk."""
    with cpu_capability(capability):
        for inner in (1, 7, 9, 33, 64, 1025, 5_000):
            for kind in Kind:
                check(draw_values((3, inner), "normal", 3, dtype), kind, 2.0, second=False)


def test_layouts_give_the_same_and_keep_their_strides():
    g = torch.randn(4, 3, 8, 8).requires_grad_()
    expected, norms = op(1, 1.0, 10.0)(g)
    (expected_gradient,) = torch.autograd.grad(expected, g)
    norms, g = norms.detach(), g.detach()
    for layout in ("contiguous", "channels_last", "transposed", "sliced", "strided"):
        x = lay_out(g, layout).requires_grad_()
        penalty = op(1, 1.0, 10.0)(x)[0]
        torch.testing.assert_close(penalty, expected, rtol=1e-6, atol=0)
        (gradient,) = torch.autograd.grad(penalty, x)
        torch.testing.assert_close(gradient, expected_gradient)
        with poisoned_memory():
            direct = torch.ops.gan_fast.gradient_penalty_backward(torch.ones(()), x.detach(), norms, 1, 1.0, 10.0)
        assert direct.stride() == torch.empty_like(x).stride()
        torch.testing.assert_close(direct, expected_gradient)


@pytest.mark.parametrize("kind", Kind)
def test_second_and_third_order_numerically(kind):
    """One sample within the center and two beyond: a one-sided penalty acts on the two."""
    g = torch.randn(3, 2, 3, dtype=torch.float64)
    g[0] *= 0.2
    g.requires_grad_()
    check_derivatives(op(kind, 1.3, 3.0), [g])
    check_derivatives(op(kind, 0.0, 3.0), [g])

    def gradient(x: Tensor) -> Tensor:
        return torch.autograd.grad(op(kind, 1.3, 3.0)(x)[0], x, create_graph=True)[0]

    check_derivatives(gradient, [g])
    # the backward op by itself: the squared norms are an input like any other
    up, n = (torch.randn((), dtype=torch.float64).requires_grad_(), (g.detach().flatten(1).square().sum(1) + 1))
    check_derivatives(
        lambda a, b, c: torch.ops.gan_fast.gradient_penalty_backward(a, b, c, int(kind), 1.3, 3.0),
        [up, g, n.requires_grad_()],
    )


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_and_tiny_rows_are_finite_to_second_order(dtype, kind):
    g = draw_values((3, 40), "normal", 1, dtype)
    g[0], g[1] = 0, g[1] * 1e-4
    for center in (0.0, 1.0):
        check(g, kind, center, second=False)
        leaf = g.requires_grad_()
        (first,) = torch.autograd.grad(op(kind, center, 3.0)(leaf)[0], leaf, create_graph=True)
        assert first.isfinite().all() and not first[0].any()
        (again,) = torch.autograd.grad(first.float().sum(), leaf)
        assert again[[0, 2]].isfinite().all()
        g = g.detach()


def test_nothing_and_nan():
    penalty, norms = op(1, 1.0, 10.0)(torch.zeros(0, 3))
    assert penalty.isnan() and norms.shape == (0,)
    penalty, norms = op(1, 1.0, 10.0)(torch.zeros(3, 0))
    assert penalty == 10 and torch.equal(norms, torch.zeros(3))
    g = torch.ones(3, 4)
    g[1, 2] = torch.nan
    for kind in Kind:
        penalty, norms = op(kind, 1.0, 10.0)(g)
        assert penalty.isnan() and norms.isnan().tolist() == [False, True, False]
        gradient = torch.ops.gan_fast.gradient_penalty_backward(torch.ones(()), g, norms, int(kind), 1.0, 10.0)
        assert gradient.isnan().any(1).tolist() == [False, True, False]


def test_bitwise_repeatable():
    g = torch.randn(3, 50_001).requires_grad_()

    def run() -> list[Tensor]:
        penalty, norms = op(1, 1.0, 10.0)(g)
        return [penalty, norms, *torch.autograd.grad(penalty, g)]

    check_bitwise_repeatable(run)


def test_opcheck():
    samples = []
    for kind in Kind:
        for dtype in (torch.float32, torch.bfloat16):
            samples.append((draw_values((4, 2, 3, 3), "normal", 1, dtype).requires_grad_(), int(kind), 1.5, 2.0))
    samples.append((lay_out(torch.randn(2, 3, 4, 5), "channels_last").requires_grad_(), 1, 1.5, 2.0))
    samples.append((lay_out(torch.randn(2, 3, 4, 5), "transposed").requires_grad_(), 1, 1.5, 2.0))
    check_op(torch.ops.gan_fast.gradient_penalty.default, samples)
    backward = []
    for g, *rest in samples:
        norms = reference.squared_norms(g.detach()).requires_grad_()
        backward.append((torch.tensor(0.7).requires_grad_(), g, norms, *rest))
    check_op(torch.ops.gan_fast.gradient_penalty_backward.default, backward)


def test_compiled_in_one_graph_with_any_batch():
    def step(g: Tensor) -> tuple[Tensor, Tensor]:
        return op(1, 1.0, 10.0)(g * 2)

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (3, 4, 7):
        with poisoned_memory():
            results = []
            for f in (compiled, step):
                g = draw_values((count, 5, 3), "normal", count, torch.float32).requires_grad_()
                penalty, norms = f(g)
                results.append((penalty, norms, *torch.autograd.grad(penalty + norms.sum(), g)))
        for a, b in zip(*results, strict=True):
            assert_close(a, b.double(), kind="reduced")


@pytest.mark.parametrize("name", OPS)
def test_every_device_has_a_kernel(name):
    for key in ("CPU", "CUDA", "Meta", "Autograd", "CompositeExplicitAutograd"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gan_fast::{name}", key), f"{name} has no {key} kernel"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.randn(()), 0, 0.0, 1.0), ValueError, r"shape \[\]; expected one a sample"),
        ((torch.randn(3, 2), 3, 0.0, 1.0), ValueError, "kind 3; expected 0"),
        ((torch.randn(3, 2), 1, -1.0, 1.0), ValueError, "center -1"),
        ((torch.zeros(3, 2).long(), 1, 1.0, 1.0), TypeError, "expected a float32"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        torch.ops.gan_fast.gradient_penalty(*arguments)
