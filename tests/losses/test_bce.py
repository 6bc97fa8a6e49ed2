"""binary_cross_entropy and BCELoss on probabilities:  -w (t max(log p, -100) + (1 - t) max(log(1 - p), -100))."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gan_fast import losses
from support import strategies
from support.checks import check_derivatives
from support.drop_in import same_outcome, same_values
from support.reference_runner import agree
from support.strategies import draw_values, lay_out
from support.tolerances import DTYPES, assert_close

OURS, THEIRS = losses.binary_cross_entropy, F.binary_cross_entropy


def formula(p, t, reduction="mean"):
    value = -(t * torch.log(p).clamp(min=-100) + (1 - t) * torch.log1p(-p).clamp(min=-100))
    return value if reduction == "none" else getattr(value, reduction)()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_formula(reduction, dtype, device):
    for shape in [(65,), (4, 3, 5, 7)]:
        p = draw_values(shape, "wide", 1, dtype).sigmoid().to(device)  # saturates to exactly 0 and 1 in some places
        t = draw_values(shape, "normal", 2, dtype).sigmoid().to(device)
        value = OURS(p, t, reduction=reduction)
        expected = formula(p.double().cpu(), t.double().cpu(), reduction)
        assert value.dtype == dtype
        assert_close(value, expected, kind="reduced", magnitude=expected.abs().max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_clamp_at_minus_100(dtype, device):
    """p of exactly 0 and 1 costs 100 where the target disagrees; its gradient is (p - t) / max(p (1 - p), 1e-12)."""
    p = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5], dtype=dtype, device=device)
    t = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5], dtype=dtype, device=device)
    assert OURS(p, t, reduction="none")[:4].tolist() == [100.0, 100.0, 0.0, 0.0]
    leaf = p.detach().requires_grad_()
    (found,) = torch.autograd.grad(OURS(leaf, t, reduction="sum"), leaf)
    expected = (p.double() - t.double()) / (p.double() * (1 - p.double())).clamp(min=1e-12)
    # torch keeps the 1e-12 in float32: 4e-9 from the formula in float64
    assert_close(found, expected, factor=1e8 if dtype == torch.float64 else 1.0)


@given(
    dtype=strategies.dtypes,
    reduction=st.sampled_from(("none", "mean", "sum")),
    shape=strategies.shapes(),
    hard=st.booleans(),
    weighted=st.booleans(),
    layout=strategies.layouts,
)
def test_same_as_torch(dtype, reduction, shape, hard, weighted, layout):
    p = lay_out(draw_values(shape, "normal", 1, dtype).sigmoid().clamp(0.02, 0.98), layout)
    t = lay_out(draw_values(shape, "normal", 2, dtype).sigmoid(), layout)
    t = (t > 0.5).to(dtype) if hard else t
    weight = draw_values(shape[-1:], "normal", 3, dtype).abs() if weighted else None
    same_values(
        lambda a, b: OURS(a, b, weight, reduction=reduction),
        lambda a, b: THEIRS(a, b, weight, reduction=reduction),
        [p, t],
        magnitude=float(max(p.numel(), 1)) * 4 if reduction == "sum" else 4.0,
        second=False,  # torch adds 1e-12 to denominators there: the formula is the better judge
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_second_order_against_the_formula(dtype, reduction, device):
    p, t = (draw_values((4, 3, 5), "normal", seed, dtype).sigmoid().clamp(0.1, 0.9).to(device) for seed in (1, 2))
    agree(
        lambda a, b: OURS(a, b, reduction=reduction),
        lambda a, b: formula(a, b, reduction),
        [p, t],
        kind="reduced",
        value_magnitude=60.0 if reduction == "sum" else 1.0,
    )


def test_same_errors_and_odd_calls():
    p, t = torch.rand(4, 3), torch.rand(4, 3)
    calls = [
        ((p, torch.rand(4)), {}),
        ((p, torch.rand(4, 1)), {}),
        ((p, t), {"reduction": "average"}),
        ((p, t), {"weight": torch.rand(7)}),
        ((p, t), {"weight": torch.rand(3)}),
        ((p, t), {"weight": torch.rand(4, 1), "reduction": "none"}),
        ((p, t.double()), {}),
        ((p.double(), t), {}),
        ((p, t.long()), {}),
        ((p.long(), t), {}),
        ((p + 1, t), {}),
        ((p - 1, t), {}),
        ((p * torch.nan, t), {}),
        ((p, t + 3), {}),
        ((p, t), {"size_average": False}),
        ((p, t), {"reduce": False}),
        ((torch.rand(()), torch.rand(())), {}),
        ((p, 0.5), {}),
    ]
    for args, kwargs in calls:
        same_outcome(OURS, THEIRS, *args, **kwargs)


def test_a_nan_probability_is_torchs_business(device):
    """Whatever torch answers to a NaN probability or target (an error or a NaN), we answer."""
    if device.type == "cuda":
        pytest.skip("torch asserts on the card, after which the process has no CUDA context")
    for bad in (0, 1):
        pair = [torch.full((9,), 0.5, device=device), torch.full((9,), 0.5, device=device)]
        pair[bad][4] = torch.nan
        same_outcome(OURS, THEIRS, *pair, reduction="none")


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_empty(reduction):
    for shape in [(0,), (0, 3)]:
        same_outcome(OURS, THEIRS, torch.zeros(shape), torch.zeros(shape), reduction=reduction)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_second_order_numerically(reduction):
    p = draw_values((3, 4), "normal", 1).sigmoid().clamp(0.1, 0.9).requires_grad_()
    t = draw_values((3, 4), "normal", 2).sigmoid().requires_grad_()
    weight = torch.rand(4, dtype=torch.float64)
    check_derivatives(lambda a, b: OURS(a, b, weight, reduction=reduction), [p, t])


def test_module_is_torchs_with_another_forward():
    ours, theirs = (cls(weight=torch.tensor([1.0, 2.0]), reduction="sum") for cls in (losses.BCELoss, torch.nn.BCELoss))
    assert isinstance(ours, torch.nn.BCELoss) and repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    same_outcome(ours, theirs, torch.rand(5, 2), torch.rand(5, 2))
