"""softplus(x) = log(1 + e^(beta x)) / beta, linear above the threshold, and logsigmoid(x) = -log(1 + e^-x)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gan_fast import losses
from support import strategies
from support.adversarial_formulas import sp
from support.checks import check_derivatives
from support.drop_in import same_outcome, same_values
from support.reference_runner import agree
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import DTYPES

PAIRS = [(losses.softplus, F.softplus), (losses.logsigmoid, F.logsigmoid)]
FORMULAS = {losses.softplus: sp, losses.logsigmoid: lambda x: -sp(-x)}


@pytest.mark.parametrize("ours", FORMULAS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["normal", "wide", "huge", "zeros", "mixed"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_formula(ours, kind, dtype, device):
    """Relative precision everywhere, also where the value is e^-|x|; the threshold at 20 costs float64 e^-20."""
    factor = 2e-9 / (16 * torch.finfo(torch.float64).eps) if dtype == torch.float64 and ours is losses.softplus else 1.0
    for shape in [(), (1,), (65,), (4, 3, 5, 7)]:
        x = draw_values(shape, kind, 1, dtype).to(device)
        agree(ours, FORMULAS[ours], [x], output_dtype=dtype, gradient_magnitude=2.0, factor=factor)


@given(
    dtype=strategies.dtypes,
    shape=strategies.shapes(),
    beta=st.sampled_from((1.0, 0.5, 2, -1.5)),
    threshold=st.sampled_from((20.0, 5.3, 0.6)),  # not hit exactly: at equality torch's second derivative is 0
    data=st.data(),
)
def test_softplus_same_as_torch(dtype, shape, beta, threshold, data):
    x = data.draw(strategies.tensors(shape, dtype))
    same_values(
        lambda a: losses.softplus(a, beta, threshold),
        lambda a: F.softplus(a, beta, threshold),
        [x],
        gradient_magnitude=2.0,
    )


@given(dtype=strategies.dtypes, shape=strategies.shapes(), data=st.data())
def test_logsigmoid_same_as_torch(dtype, shape, data):
    x = data.draw(strategies.tensors(shape, dtype))
    same_values(losses.logsigmoid, F.logsigmoid, [x], gradient_magnitude=2.0)


def test_same_errors_and_odd_calls():
    x = torch.randn(4, 3)
    for ours, theirs in PAIRS:
        for bad in (x.long(), x > 0, torch.complex(x, x), 1.0, x.numpy(), torch.zeros(0, 3), torch.tensor(torch.nan)):
            same_outcome(ours, theirs, bad)
    for keywords in ({"beta": 2}, {"threshold": 1}, {"beta": 0.5, "threshold": 3}, {"beta": 0}):
        same_outcome(losses.softplus, F.softplus, x, **keywords)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_inf_as_torch(dtype, device):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e4, -1e4, 0.0, -0.0] * 5, dtype=dtype, device=device)
    for ours, theirs in PAIRS:
        same_outcome(ours, theirs, x)
        gradients = []
        for f in (ours, theirs):
            leaf = x.detach().requires_grad_()
            gradients += torch.autograd.grad(f(leaf).sum(), leaf)
        assert bool(torch.equal(gradients[0].isnan(), gradients[1].isnan()))
        assert bool(((gradients[0] - gradients[1]).abs().nan_to_num(0.0) <= 4 * torch.finfo(dtype).eps).all())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_follow_torch_or_the_input(layout):
    x = lay_out(torch.randn(2, 3, 4, 5), layout)
    for ours, theirs in PAIRS:
        assert ours(x).stride() in (theirs(x).stride(), torch.empty_like(x).stride())


@pytest.mark.parametrize("ours", FORMULAS, ids=lambda f: f.__name__)
def test_second_order_numerically(ours):
    check_derivatives(ours, [draw_values((3, 4), "normal", 1).requires_grad_()])


def test_modules_are_torchs_with_another_forward():
    for ours, theirs in (
        (losses.Softplus(2, 5), torch.nn.Softplus(2, 5)),
        (losses.LogSigmoid(), torch.nn.LogSigmoid()),
    ):
        assert isinstance(ours, type(theirs)) and repr(ours) == repr(theirs)
        same_outcome(ours, theirs, torch.randn(5, 2) * 4)
