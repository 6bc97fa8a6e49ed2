"""binary_cross_entropy_with_logits and BCEWithLogitsLoss, with weight w and pos_weight p:

w (p t softplus(-x) + (1 - t) softplus(x))
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gan_fast import losses
from support import strategies
from support.adversarial_formulas import sp
from support.checks import check_bitwise_repeatable, check_derivatives
from support.drop_in import same_outcome, same_values
from support.kernels import needs_kernels
from support.reference_runner import agree
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import DTYPES

OURS, THEIRS = losses.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits


def formula(x, t, w=None, p=None, reduction="mean"):
    value = (1 if p is None else p) * t * sp(-x) + (1 - t) * sp(x)
    value = value if w is None else w * value
    return value if reduction == "none" else getattr(value, reduction)()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "wide", "huge", "mixed", "zeros"])
def test_against_the_formula(reduction, dtype, kind, device):
    """Value, gradient and gradient of gradient in float64 terms."""
    for shape in [(65,), (4, 3, 5, 7)]:
        x = draw_values(shape, kind, 1, dtype).to(device)
        t = draw_values(shape, "normal", 2, dtype).sigmoid().to(device)
        size = x.double().abs() if reduction == "none" else getattr(x.double().abs(), reduction)()
        if (
            dtype in (torch.float16, torch.bfloat16)
            and reduction == "sum"
            and kind == "huge"
            and dtype == torch.float16
        ):
            size = 0.0  # the sum overflows float16, in torch as here
        agree(
            lambda a, b: OURS(a, b, reduction=reduction),
            lambda a, b: formula(a, b, reduction=reduction),
            [x, t],
            kind="reduced",
            value_magnitude=size,
            output_dtype=dtype,
            second=kind in ("normal", "zeros"),
        )


@pytest.mark.parametrize("hard", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_hard_targets_keep_relative_precision_where_it_matters(hard, dtype, device):
    """A well-classified logit's loss e^-|x| loses at most eps |x| to cancellation, its gradient eps."""
    x = torch.linspace(-90, 90, 721, dtype=dtype, device=device)
    agree(
        lambda a: OURS(a, torch.full_like(a, hard), reduction="none"),
        lambda a: formula(a, torch.full_like(a, hard), reduction="none"),
        [x],
        value_magnitude=x.double().abs().cpu(),
        gradient_magnitude=2.0,
    )


@given(
    dtype=strategies.dtypes,
    reduction=st.sampled_from(("none", "mean", "sum")),
    shape=strategies.shapes(),
    target=st.sampled_from(("soft", "hard", "outside")),
    data=st.data(),
)
def test_same_as_torch(dtype, reduction, shape, target, data):
    x = data.draw(strategies.tensors(shape, dtype))
    t = lay_out(draw_values(shape, "normal", 7, dtype), data.draw(strategies.layouts))
    t = t.sigmoid() if target == "soft" else (t > 0).to(dtype) if target == "hard" else t
    product = x.double().abs() * (1 + t.double().abs()) + 1
    size = product if reduction == "none" else getattr(product, reduction)()
    largest = 2.0 if reduction != "mean" else 2.0 / max(x.numel(), 1)
    second = not (reduction == "sum" and dtype == torch.float16)
    same_values(
        lambda a, b: OURS(a, b, reduction=reduction),
        lambda a, b: THEIRS(a, b, reduction=reduction),
        [x, t],
        magnitude=size,
        gradient_magnitude=2 * largest,
        second=second,
    )


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weight_shape", [None, (4, 3, 5), (3, 5), (5,), (3, 1), (4, 1, 1), ()])
@pytest.mark.parametrize("pos_shape", [None, (5,), (3, 5), (1,), (3, 1)])
def test_weights_of_any_broadcast_shape(reduction, weight_shape, pos_shape, device):
    """weight and pos_weight broadcast as torch broadcasts them."""
    x, t = (draw_values((4, 3, 5), "normal", seed, torch.float32).to(device) for seed in (1, 2))
    weights = [
        None if shape is None else draw_values(shape, "normal", seed, torch.float32).abs().to(device)
        for seed, shape in ((3, weight_shape), (4, pos_shape))
    ]

    def spread(f):
        def call(a, b):
            wide = [w if w is None else w.to(a.dtype) for w in weights]
            return f(a, b, weight=wide[0], pos_weight=wide[1], reduction=reduction)

        return call

    size = 200.0 if reduction == "sum" else 4.0
    same_values(spread(OURS), spread(THEIRS), [x, t.sigmoid()], magnitude=size, gradient_magnitude=1.0)


def test_same_errors_and_odd_calls():
    """Every call torch refuses is refused in torch's words; every odd call torch accepts returns what torch returns."""
    x, t = torch.randn(4, 3), torch.rand(4, 3)
    calls = [
        ((x, torch.rand(4)), {}),
        ((x, torch.rand(4, 1)), {}),
        ((x, torch.rand(3)), {}),
        ((x, t), {"reduction": "average"}),
        ((x, t), {"weight": torch.rand(7)}),
        ((x, t), {"pos_weight": torch.rand(2)}),
        ((x, t.double()), {}),
        ((x.double(), t), {}),
        ((x.half(), t), {}),
        ((x, t.bfloat16()), {"reduction": "none"}),
        ((x, (t > 0.5).long()), {}),
        ((x, t > 0.5), {}),
        ((x.long(), t), {}),
        ((x, t), {"weight": torch.rand(3).double()}),
        ((x, t), {"weight": torch.rand(3).requires_grad_()}),
        ((x, t), {"pos_weight": torch.rand(3).requires_grad_()}),
        ((x, t), {"size_average": False}),
        ((x, t), {"reduce": False}),
        ((x, t), {"size_average": True, "reduce": True}),
        ((x.to("meta"), t.to("meta")), {}),
        ((x, t.to("meta")), {}),
        ((torch.randn(()), torch.rand(())), {}),
        ((x, 0.5), {}),
        ((x.numpy(), t), {}),
        ((torch.complex(x, x), t), {}),
    ]
    for args, kwargs in calls:
        if any(isinstance(a, torch.Tensor) and a.is_meta for a in args):
            assert_same_meta(args, kwargs)
        else:
            same_outcome(OURS, THEIRS, *args, **kwargs)


def assert_same_meta(args, kwargs):
    from support.drop_in import outcome

    a, b = outcome(OURS, *args, **kwargs), outcome(THEIRS, *args, **kwargs)
    assert a[0] == b[0], f"ours {a}, torch {b}"
    if a[0] == "returned":
        assert a[1].shape == b[1].shape and a[1].dtype == b[1].dtype and a[1].device == b[1].device


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_empty(reduction):
    for shape in [(0,), (0, 3), (2, 0, 4)]:
        same_outcome(OURS, THEIRS, torch.zeros(shape), torch.zeros(shape), reduction=reduction)
    x = torch.zeros(0, 3, requires_grad=True)
    (g,) = torch.autograd.grad(OURS(x, torch.zeros(0, 3), reduction="sum"), x)
    assert g.shape == (0, 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_inf_as_torch(dtype, device):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 1e4, -1e4] * 6, dtype=dtype, device=device)
    for target in (0.0, 1.0, 0.25, torch.nan):
        t = torch.full_like(x, target)
        for reduction in ("none", "mean"):
            ours, theirs = OURS(x, t, reduction=reduction), THEIRS(x, t, reduction=reduction)
            assert bool((ours.isnan() == theirs.isnan()).all()), (target, reduction, ours[:6], theirs[:6])
            same_outcome(OURS, THEIRS, x, t, reduction=reduction)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_second_order_numerically(reduction):
    x, t, w, p = (draw_values(s, "normal", i).requires_grad_() for i, s in enumerate([(3, 4), (3, 4), (4,), (4,)]))
    w, p = w.detach().abs(), p.detach().abs()
    check_derivatives(lambda a, b: OURS(a, b.sigmoid(), weight=w, pos_weight=p, reduction=reduction), [x, t])


def test_module_is_torchs_with_another_forward():
    """State, repr, buffers and results: a checkpoint or a subclass test that knew torch's module knows ours."""
    ours, theirs = (
        cls(weight=torch.tensor([1.0, 2.0]), pos_weight=torch.tensor([3.0, 0.5]), reduction="sum")
        for cls in (losses.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss)
    )
    assert isinstance(ours, torch.nn.BCEWithLogitsLoss) and repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x, t = torch.randn(5, 2), torch.rand(5, 2)
    same_outcome(ours, theirs, x, t)
    same_outcome(ours.double(), theirs.double(), x.double(), t.double())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unreduced_strides_follow_torch_or_the_input(layout):
    x, t = lay_out(torch.randn(2, 3, 4, 5), layout), torch.rand(2, 3, 4, 5)
    assert OURS(x, t, reduction="none").stride() in (
        THEIRS(x, t, reduction="none").stride(),
        torch.empty_like(x).stride(),
    )


@needs_kernels
def test_same_bits_on_every_thread_count():
    x, t = torch.randn(4, 1, 181, 191), torch.rand(4, 1, 181, 191)

    def run():
        leaf = x.detach().requires_grad_()
        value = OURS(leaf, t)
        return [value, *torch.autograd.grad(value, leaf)]

    check_bitwise_repeatable(run)
