"""The seven adversarial losses against float64 formulas derived apart: roles, reductions, weights, scales, stats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_fast import losses, reference_mode
from support import strategies
from support.adversarial_formulas import COUPLED, NAMES, NEEDS_REAL, PAIRED, Loss, gradient_scale, reduced, spread
from support.checks import check_bitwise_repeatable, check_derivatives
from support.kernels import needs_kernels
from support.reference_runner import agree, poisoned_memory
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import DTYPES, accumulation_dtype, assert_bitwise_equal, assert_close

ROLES = ("discriminator", "generator")


def call(name: str, role: str, real, fake, *, reduction: str = "mean", real_weight=None, fake_weight=None, **options):
    """gan_fast's side; a loss whose generator needs no real logits gets none."""
    loss = losses.get(name)(reduction=reduction, **options)
    if role == "discriminator":
        return loss.discriminator(real=real, fake=fake, real_weight=real_weight, fake_weight=fake_weight)
    if name in NEEDS_REAL:
        return loss.generator(fake=fake, real=real, real_weight=real_weight, fake_weight=fake_weight)
    return loss.generator(fake=fake, fake_weight=fake_weight)


def side_by_side(name: str, role: str, real: Tensor, fake: Tensor, real_weight, fake_weight, reduction: str) -> None:
    """Value and both gradients of one scale against the formulas, on poisoned memory."""
    real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
    with poisoned_memory():
        value = call(name, role, real, fake, reduction=reduction, real_weight=real_weight, fake_weight=fake_weight)
        wanted = [real, fake] if role == "discriminator" or name in NEEDS_REAL else [fake]
        gradients = torch.autograd.grad(value, wanted)
    cpu = [None if x is None else x.detach().cpu() for x in (real, fake, real_weight, fake_weight)]
    truth = reduced(Loss(name, role), [cpu[0]], [cpu[1]], [cpu[2]], [cpu[3]], reduction)
    assert value.ndim == 0 and value.dtype == accumulation_dtype(fake.dtype)
    assert_close(value, truth.value, kind="reduced", magnitude=truth.magnitude, what=f"{name} {role} {reduction}")
    expected = [truth.real_gradients[0], truth.fake_gradients[0]][-len(wanted) :]
    for leaf, got, exact in zip(wanted, gradients, expected, strict=True):
        assert got.dtype == leaf.dtype
        scale = gradient_scale(name, exact, *(x for x in cpu[:2] if x is not None))
        assert_close(got, exact, kind="reduced", magnitude=scale, what=f"{name} {role} {reduction} gradient")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_loss_role_and_dtype(name, role, dtype, device):
    for shape in [(64,), (16, 1, 6, 7), (1,), ()]:
        for reduction in ("mean", "sum"):
            real = draw_values(shape, "mixed", 1, dtype).to(device)
            fake = draw_values(shape, "mixed", 2, dtype).to(device)
            side_by_side(name, role, real, fake, None, None, reduction)


@given(
    name=st.sampled_from(NAMES),
    role=st.sampled_from(ROLES),
    reduction=st.sampled_from(("mean", "sum")),
    shape=strategies.shapes(min_dims=1),
    dtype=strategies.dtypes,
    weighted=st.sampled_from(("none", "sample", "full", "real only")),
    data=st.data(),
)
def test_any_shape_layout_and_weight(name, role, reduction, shape, dtype, weighted, data):
    real = data.draw(strategies.tensors(shape, dtype), label="real")
    fake = data.draw(strategies.tensors(shape, dtype), label="fake")
    weights: list[Tensor | None] = [None, None]
    if weighted != "none":
        like = shape if weighted == "full" else shape[:1]
        weights = [draw_values(like, "normal", seed, dtype).abs() for seed in (5, 6)]
        if weighted == "real only":
            weights[1] = None
    side_by_side(name, role, real, fake, *weights, reduction)


@given(
    count=strategies.counts(), other=strategies.counts(), name=st.sampled_from([n for n in NAMES if n not in PAIRED])
)
def test_sides_of_different_size(count, other, name):
    """Means divide by each side's own count; only the paired loss needs equal shapes."""
    real, fake = draw_values((count,), "normal", 1, torch.float32), draw_values((other,), "wide", 2, torch.float32)
    side_by_side(name, "discriminator", real, fake, None, None, "mean")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_change_nothing(name, layout, device):
    """Values and gradients are those of the contiguous copy, to the last bit for the gradients."""
    values = [draw_values((4, 3, 5, 6), "normal", seed, torch.float32).to(device) for seed in (1, 2)]
    odd = [lay_out(x, layout).requires_grad_() for x in values]
    flat = [x.detach().contiguous().requires_grad_() for x in odd]
    results = []
    for real, fake in (odd, flat):
        value = losses.get(name)().discriminator(real=real, fake=fake)
        results.append((value, torch.autograd.grad(value, [real, fake])))
    assert_close(results[0][0], results[1][0].double(), kind="reduced", magnitude=10.0, what=layout)
    for got, expected in zip(results[0][1], results[1][1], strict=True):
        if name in COUPLED:  # the other side's mean may be summed in another order
            assert_close(got, expected.double(), kind="reduced", magnitude=1 / got.numel(), what=layout)
        else:
            assert_bitwise_equal(got, expected, f"{layout} gradient")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_lists_of_scales(name, role, reduction, device):
    """A list is the sum over its scales, each reduced on its own; unreduced terms come back as lists."""
    shapes = [(4, 1, 9, 9), (4, 1, 5, 5), (4, 1, 1, 1), (4,)]
    real = [draw_values(x, "normal", i, torch.float32).to(device).requires_grad_() for i, x in enumerate(shapes)]
    fake = [draw_values(x, "normal", 9 + i, torch.float32).to(device).requires_grad_() for i, x in enumerate(shapes)]
    w = [draw_values(x[:1], "normal", 20 + i, torch.float32).abs().to(device) for i, x in enumerate(shapes)]
    v = [draw_values(x, "normal", 30 + i, torch.float32).abs().to(device) for i, x in enumerate(shapes)]
    got = call(name, role, real, fake, reduction=reduction, real_weight=w, fake_weight=v)
    one_by_one = [
        call(name, role, *x[:2], reduction=reduction, real_weight=x[2], fake_weight=x[3])
        for x in zip(real, fake, w, v, strict=True)
    ]
    if reduction == "none":
        if not isinstance(one_by_one[0], Tensor):
            got = [*got.real, *got.fake]
            one_by_one = [x.real for x in one_by_one] + [x.fake for x in one_by_one]
        assert isinstance(got, list) and len(got) == len(one_by_one)
        for a, b in zip(got, one_by_one, strict=True):
            assert_bitwise_equal(a, b)
        return
    cpu = [[x.detach().cpu() for x in side] for side in (real, fake, w, v)]
    truth = reduced(Loss(name, role), *cpu, reduction)
    assert_close(got, truth.value, kind="reduced", magnitude=truth.magnitude)
    uses_real = role == "discriminator" or name in NEEDS_REAL
    found = torch.autograd.grad(got, [*real, *fake] if uses_real else fake)
    expected = [*truth.real_gradients, *truth.fake_gradients] if uses_real else truth.fake_gradients
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, kind="reduced", magnitude=b.abs().max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_unreduced_terms(name, role, dtype, device):
    """reduction none: weighted terms in the logits' shape and dtype, a (real, fake) pair unless there is one term."""
    real, fake = (draw_values((6, 1, 3, 3), "mixed", seed, dtype).to(device) for seed in (1, 2))
    w, v = (draw_values((6,), "normal", seed, dtype).abs().to(device) for seed in (3, 4))
    got = call(name, role, real, fake, reduction="none", real_weight=w, fake_weight=v)
    exact = [x.cpu().double() for x in (real, fake)]
    expected, slopes = Loss(name, role).terms(*exact), Loss(name, role).slopes(*exact)
    wide = [spread(x.cpu(), real.cpu().double()) for x in (w, v)]
    if name in PAIRED:
        wide = [wide[0] * wide[1]] * 2
    pairs = [(e * x) for e, x in zip(expected, wide, strict=True) if e is not None]
    # A difference of logits is rounded before its softplus is taken: half an ulp of 2e4 times the slope.
    sizes = [
        2e4 * d.abs() * x if name in NEEDS_REAL else 0.0 for d, x in zip(slopes, wide, strict=True) if d is not None
    ]
    found = [got] if isinstance(got, Tensor) else [got.real, got.fake]
    assert isinstance(got, tuple) == (len(pairs) == 2)
    for a, b, size in zip(found, pairs, sizes, strict=True):
        assert a.dtype == dtype and a.shape == real.shape
        assert_close(a, b, magnitude=size, what=f"{name} {role} terms")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_second_order_numerically(name, role, reduction):
    """gradcheck and gradgradcheck in float64, weighted, away from the hinge's corners."""
    real, fake = (draw_values((3, 2), "normal", seed).requires_grad_() for seed in (3, 4))
    w, v = torch.tensor([0.5, 2.0, 1.25], dtype=torch.float64), torch.rand(3, 2, dtype=torch.float64)

    def function(r, f):
        out = call(name, role, r, f, reduction=reduction, real_weight=w, fake_weight=v)
        return out if isinstance(out, Tensor) else tuple(out)

    if role == "discriminator" or name in NEEDS_REAL:
        check_derivatives(function, [real, fake])
    else:
        check_derivatives(lambda f: function(real, f), [fake])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_second_order_in_every_dtype(name, reduction, dtype, device):
    """Value, gradient and gradient of gradient against the float64 reference, on poisoned memory."""
    real, fake = (draw_values((5, 1, 3, 7), "normal", seed, dtype).to(device) for seed in (3, 4))

    def candidate(r, f):
        out = call(name, "discriminator", r, f, reduction=reduction)
        return out if isinstance(out, Tensor) else tuple(out)

    def truth(r, f):
        with reference_mode():
            return candidate(r, f)

    agree(
        candidate, truth, [real, fake], kind="reduced", value_magnitude=100.0 if reduction == "sum" else 1.0, factor=2
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("as_list", [False, True])
def test_statistics(name, reduction, as_list, device):
    """with_stats adds detached 0-dim means over all logits of all scales and leaves the loss as it was, to the bit."""
    real, fake = (
        [draw_values(x, "ties", seed, torch.float32).to(device).requires_grad_() for x in ((7, 1, 3, 3), (7,))]
        for seed in (1, 2)
    )
    if not as_list:
        real, fake = real[0], fake[0]
    loss = losses.get(name)(reduction=reduction)
    plain = loss.discriminator(real=real, fake=fake)
    value, stats = loss.discriminator(real=real, fake=fake, with_stats=True)
    assert_bitwise_equal(value, plain)
    assert isinstance(stats, losses.CriticStats)
    assert stats._fields[:5] == ("loss", "real_mean", "fake_mean", "real_sign_mean", "fake_sign_mean")
    for x in stats[:5]:
        assert x.ndim == 0 and not x.requires_grad and x.device.type == device.type
    assert_bitwise_equal(stats.loss, value.detach())
    for side, mean, sign in (
        (real, stats.real_mean, stats.real_sign_mean),
        (fake, stats.fake_mean, stats.fake_sign_mean),
    ):
        logits = torch.cat([x.detach().cpu().double().flatten() for x in (side if as_list else [side])])
        assert_close(mean, logits.mean(), kind="reduced", magnitude=2.0)
        assert_close(sign, logits.sign().mean(), kind="reduced", magnitude=1.0)
    leaves = real + fake if as_list else [real, fake]
    for a, b in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(plain, leaves), strict=True):
        assert_bitwise_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_logit_gradients_are_autograds(name, dtype, reduction, device):
    real, fake = (draw_values((8, 1, 5, 5), "mixed", seed, dtype).to(device).requires_grad_() for seed in (1, 2))
    w, v = (draw_values((8,), "normal", seed, dtype).abs().to(device) for seed in (3, 4))
    loss = losses.get(name)(reduction=reduction)
    with poisoned_memory():
        got = loss.logit_gradients(real=real, fake=fake, real_weight=w, fake_weight=v)
        out = loss.discriminator(real=real, fake=fake, real_weight=w, fake_weight=v)
    total = out if isinstance(out, Tensor) else out.real.sum() + out.fake.sum()
    expected = torch.autograd.grad(total.sum(), [real, fake])
    assert isinstance(got, tuple) and len(got) == 2
    for a, b, leaf in zip(got, expected, (real, fake), strict=True):
        assert a.dtype == dtype and a.shape == leaf.shape and not a.requires_grad
        assert_close(a, b.double(), kind="reduced", magnitude=b.abs().max().item())
    listed = loss.logit_gradients(real=[real], fake=[fake], real_weight=[w], fake_weight=[v])
    assert_bitwise_equal(listed[0][0], got[0])
    assert_bitwise_equal(listed[1][0], got[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logits_of_ten_thousand(name, dtype, device):
    """Finite and right at +-1e4, in value and gradient; the sum of squares needs float32 even for float16 logits."""
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        real, fake = (torch.full((33,), 1e4 * x, dtype=dtype, device=device) for x in signs)
        for role in ROLES:
            for reduction in ("mean", "sum"):
                assert call(name, role, real, fake, reduction=reduction).isfinite()
                side_by_side(name, role, real, fake, None, None, reduction)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("count", [3, 64, 1027])
def test_nan_and_inf_pass_through(name, dtype, bad, count, device):
    """One bad logit shows where the formula says: NaN in value and gradient for NaN, the limits for inf."""
    for place in (0, count // 2, count - 1):
        for side in (0, 1):
            logits = [draw_values((count,), "normal", seed, dtype).to(device) for seed in (1, 2)]
            logits[side][place] = bad
            leaves = [x.requires_grad_() for x in logits]
            value = call(name, "discriminator", *leaves)
            got = torch.autograd.grad(value, leaves)
            truth = reduced(Loss(name), [leaves[0].detach().cpu()], [leaves[1].detach().cpu()])
            assert_close(value, truth.value, kind="reduced", magnitude=truth.magnitude.nan_to_num(0, 0, 0))
            if math.isnan(bad):
                assert value.isnan()
                if name not in (
                    "wasserstein",
                    "hinge",
                ):  # their slope is a constant: torch's relu passes the gradient on
                    assert got[side][place].isnan()
                continue
            for a, b in zip(got, (truth.real_gradients[0], truth.fake_gradients[0]), strict=True):
                assert_close(a, b, kind="reduced", magnitude=b.abs().nan_to_num(0, 0, 0).max())


@pytest.mark.parametrize("name", NAMES)
def test_empty_input_behaves_as_torch(name, device):
    """mean: NaN, sum: 0, none: empty."""
    real, fake = (torch.zeros(0, 1, 3, 3, device=device, requires_grad=True) for _ in range(2))
    assert call(name, "discriminator", real, fake).isnan()
    total = call(name, "discriminator", real, fake, reduction="sum")
    assert total == 0 or (name in COUPLED and total == 0)
    for g in torch.autograd.grad(total, [real, fake]):
        assert g.shape == (0, 1, 3, 3)
    terms = call(name, "discriminator", real, fake, reduction="none")
    for x in [terms] if isinstance(terms, Tensor) else terms:
        assert x.shape == (0, 1, 3, 3)
    assert call(name, "generator", real, fake).isnan()


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_on_every_run_and_thread_count(name, dtype):
    """Reductions are deterministic: blocks are cut by size, never by the number of threads."""
    real, fake = (draw_values((16, 1, 97, 101), "normal", seed, dtype) for seed in (1, 2))

    def run():
        leaves = [x.detach().requires_grad_() for x in (real, fake)]
        value, stats = losses.get(name)().discriminator(real=leaves[0], fake=leaves[1], with_stats=True)
        return [value, *stats[:5], *torch.autograd.grad(value, leaves)]

    check_bitwise_repeatable(run)


@pytest.mark.parametrize("name", NAMES)
def test_many_logits_keep_their_precision(name):
    """61,504 and 300,007 float32 logits stay within the bound of a block sum, which a running sum exceeds."""
    for count in (61_504, 300_007):
        real, fake = (draw_values((count,), "normal", seed, torch.float32) + 3 for seed in (1, 2))
        side_by_side(name, "discriminator", real, fake, None, None, "mean")


@pytest.mark.parametrize("name", NAMES)
def test_reference_mode_agrees_and_is_left_again(name):
    real, fake = (draw_values((64,), "normal", seed, torch.float32) for seed in (1, 2))
    fused = call(name, "discriminator", real, fake)
    with reference_mode():
        with reference_mode():
            inner = call(name, "discriminator", real, fake)
        outer = call(name, "discriminator", real, fake)
    assert_bitwise_equal(inner, outer)
    assert_close(fused, inner.double(), kind="reduced", magnitude=2.0)
    assert_bitwise_equal(call(name, "discriminator", real, fake), fused)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_label_smoothing_is_one_sided(smoothing, dtype, device):
    """Real targets become 1 - label_smoothing; fake targets stay 0 and the generator's target stays 1."""
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    real, fake = (draw_values((64,), "wide", seed, dtype).to(device).requires_grad_() for seed in (1, 2))
    got = call("non_saturating", "discriminator", real, fake, label_smoothing=smoothing)
    wide = [x.detach().double().requires_grad_() for x in (real, fake)]
    expected = bce(wide[0], torch.full_like(wide[0], 1 - smoothing)) + bce(wide[1], torch.zeros_like(wide[1]))
    assert_close(got, expected, kind="reduced", magnitude=expected.item())
    for a, b in zip(torch.autograd.grad(got, [real, fake]), torch.autograd.grad(expected, wide), strict=True):
        assert_close(a, b, kind="reduced", magnitude=1 / 64)
    generator = call("non_saturating", "generator", real, fake, label_smoothing=smoothing)
    assert_bitwise_equal(generator, call("non_saturating", "generator", real, fake))


def test_least_squares_targets(device):
    real, fake = (draw_values((64,), "normal", seed).to(device) for seed in (1, 2))
    loss = losses.LeastSquaresLoss(a=-1.0, b=1.5, c=0.25)
    assert_close(
        loss.discriminator(real=real, fake=fake), ((real - 1.5) ** 2).mean() / 2 + ((fake + 1) ** 2).mean() / 2
    )
    assert_close(loss.generator(fake=fake), ((fake - 0.25) ** 2).mean() / 2)


@pytest.mark.parametrize("name", NAMES)
def test_weight_of_one_changes_nothing_and_zero_removes(name):
    real, fake = (draw_values((6, 1, 2, 2), "normal", seed, torch.float32).requires_grad_() for seed in (1, 2))
    one = torch.ones(6)
    assert_close(
        call(name, "discriminator", real, fake, real_weight=one, fake_weight=one),
        call(name, "discriminator", real, fake).double(),
        kind="reduced",
        magnitude=4.0,
    )
    zero = call(name, "discriminator", real, fake, real_weight=one * 0, fake_weight=one * 0)
    assert zero == 0
    for g in torch.autograd.grad(zero, [real, fake]):
        assert not g.any()


@pytest.mark.parametrize("name", NAMES)
def test_only_the_wanted_gradient(name):
    """One side may be a constant: its gradient is not asked for and the other's is unchanged."""
    real, fake = (draw_values((40,), "normal", seed, torch.float32) for seed in (1, 2))
    both = [x.clone().requires_grad_() for x in (real, fake)]
    expected = torch.autograd.grad(call(name, "discriminator", *both), both)
    for side in (0, 1):
        leaves = [real.clone(), fake.clone()]
        leaves[side].requires_grad_()
        (got,) = torch.autograd.grad(call(name, "discriminator", *leaves), [leaves[side]])
        assert_bitwise_equal(got, expected[side])


@pytest.mark.parametrize("name", NAMES)
def test_one_tensor_on_both_sides(name):
    """real and fake may be the same tensor: its gradient is the sum of the two."""
    x = draw_values((33,), "normal", 1, torch.float64).requires_grad_()
    (found,) = torch.autograd.grad(call(name, "discriminator", x, x), x)
    truth = reduced(Loss(name), [x.detach()], [x.detach()])
    assert_close(found, truth.real_gradients[0] + truth.fake_gradients[0], kind="reduced", magnitude=1 / 33)
