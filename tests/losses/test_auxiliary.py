"""What is added to an adversarial loss: feature matching, cycle consistency, identity, auxiliary classification."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from gan_fast import losses
from support import strategies
from support.checks import check_bitwise_repeatable, check_derivatives
from support.kernels import needs_kernels
from support.reference_runner import agree
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import DTYPES, accumulation_dtype, assert_bitwise_equal, assert_close

SHAPES = [(4, 8, 9, 7), (4, 3, 5, 5), (4, 11), (4,)]


def layers(seed, dtype=torch.float32, kind="normal"):
    return [draw_values(shape, kind, seed + i, dtype) for i, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "huge", "ties"])
def test_feature_matching_is_the_sum_of_mean_distances(dtype, kind, device):
    """sum_k mean |real_k - fake_k|; the derivative at a tie is 0."""
    real, fake = ([x.to(device) for x in layers(seed, dtype, kind)] for seed in (1, 50))
    agree(
        lambda *f: losses.feature_matching(real, list(f)),
        lambda *f: sum((r.double() - x).abs().mean() for r, x in zip(real, f, strict=True)),
        fake,
        kind="reduced",
        output_dtype=accumulation_dtype(dtype),
        second=False,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout, device):
    real = lay_out(draw_values((3, 4, 5, 6), "normal", 1, torch.float32).to(device), layout)
    fake = draw_values((3, 4, 5, 6), "normal", 2, torch.float32).to(device)
    for a, b in ((real, fake), (fake, real)):
        leaf = b.detach().requires_grad_()
        got = losses.feature_matching(a, leaf)
        assert_close(got, (a.double() - b.double()).abs().mean(), kind="reduced")
        (g,) = torch.autograd.grad(got, leaf)
        assert_close(g, (b.double() - a.double()).sign() / b.numel())


@given(count=strategies.counts(), dtype=strategies.dtypes)
def test_any_count(count, dtype):
    a, b = (draw_values((count,), "mixed", seed, dtype) for seed in (1, 2))
    assert_close(losses.feature_matching(a, b), (a.double() - b.double()).abs().mean(), kind="reduced")


def test_real_features_are_constants():
    real, fake = ([x.requires_grad_() for x in layers(seed)] for seed in (1, 50))
    value = losses.feature_matching(real, fake)
    found = torch.autograd.grad(value, [*real, *fake], allow_unused=True)
    assert all(g is None for g in found[: len(real)]) and all(g is not None for g in found[len(real) :])


def test_moments_match_the_batch_means(device):
    real, fake = (layers(seed) for seed in (1, 50))
    fake[0] = fake[0][:3]  # moments need no equal batches
    got = losses.feature_matching([x.to(device) for x in real], [x.to(device) for x in fake], moments=True)
    expected = sum((r.double().mean(0) - f.double().mean(0)).square().sum() for r, f in zip(real, fake, strict=True))
    assert_close(got, expected, kind="reduced", factor=4.0)


def test_mismatches_are_named():
    with pytest.raises(ValueError):
        losses.feature_matching(layers(1), layers(1)[:2])
    with pytest.raises((ValueError, RuntimeError), match=r"4.*5|5.*4"):
        losses.feature_matching(torch.randn(4, 3), torch.randn(5, 3))
    with pytest.raises((ValueError, RuntimeError, TypeError), match="float32"):
        losses.feature_matching(torch.randn(4), torch.randn(4).double())


def test_empty_behaves_as_torchs_l1():
    empty = torch.zeros(0, 3, requires_grad=True)
    value = losses.feature_matching(torch.zeros(0, 3), empty)
    assert value.isnan()
    assert torch.autograd.grad(value, empty)[0].shape == (0, 3)


def test_second_order_numerically():
    a, b = (draw_values((3, 4), "normal", seed).requires_grad_() for seed in (1, 2))
    check_derivatives(lambda x: losses.feature_matching(b.detach(), x), [a])
    check_derivatives(lambda x, y: losses.cycle_consistency(x, y), [a, b])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_inf(bad):
    a = torch.zeros(19)
    a[7] = bad
    value = losses.feature_matching(a, torch.ones(19))
    assert value.isnan() if math.isnan(bad) else value.isinf()


def test_cycle_identity_and_classifier():
    a, b = (draw_values((2, 3, 8, 8), "normal", seed).requires_grad_() for seed in (1, 2))
    assert_close(losses.cycle_consistency(a, b), 10 * (a - b).abs().mean(), kind="reduced")
    assert_close(losses.cycle_consistency(a, b, weight=0.5), 0.5 * (a - b).abs().mean(), kind="reduced")
    assert_close(losses.identity(a, b), 5 * (a - b).abs().mean(), kind="reduced")
    for got, expected in zip(
        torch.autograd.grad(losses.cycle_consistency(a, b), [a, b]),
        torch.autograd.grad(10 * (a - b).abs().mean(), [a, b]),
        strict=True,
    ):
        assert_close(got, expected)
    logits, labels = torch.randn(5, 10), torch.randint(0, 10, (5,))
    assert_bitwise_equal(losses.auxiliary_classifier(logits, labels, weight=0.5), 0.5 * F.cross_entropy(logits, labels))


@needs_kernels
def test_same_bits_on_every_thread_count():
    a, b = torch.randn(4, 64, 41, 43), torch.randn(4, 64, 41, 43)

    def run():
        leaf = b.detach().requires_grad_()
        value = losses.feature_matching(a, leaf)
        return [value, *torch.autograd.grad(value, leaf)]

    check_bitwise_repeatable(run)
