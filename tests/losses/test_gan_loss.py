"""`GANLoss(gan_mode)(prediction, target_is_real)`: the signature of the image-translation code bases."""

from __future__ import annotations

import pytest
import torch

from gan_fast import losses
from support.adversarial_formulas import sp
from support.strategies import draw_values
from support.tolerances import DTYPES, accumulation_dtype, assert_close

MODES = ("vanilla", "lsgan", "wgangp", "hinge", "nonsaturating")


def formula(mode, x, real, real_label=1.0, fake_label=0.0):
    label, sign = (real_label, -1.0) if real else (fake_label, 1.0)
    return {
        "vanilla": lambda: label * sp(-x) + (1 - label) * sp(x),
        "lsgan": lambda: (x - label) ** 2,
        "wgangp": lambda: sign * x,
        "hinge": lambda: (1 + sign * x).clamp(min=0),
        "nonsaturating": lambda: sp(sign * x),
    }[mode]()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_mode(mode, real, dtype, device):
    """Value and gradient, with default and with soft labels, for a patch map and for a list of scales."""
    for labels in [(1.0, 0.0), (0.9, 0.1), (0.3, 0.7)]:
        x = draw_values((4, 1, 5, 5), "wide", 1, dtype).to(device).requires_grad_()
        got = losses.GANLoss(mode, *labels)(x, real)
        leaf = x.detach().cpu().double().requires_grad_()
        terms = formula(mode, leaf, real, *labels)
        assert got.ndim == 0 and got.dtype == accumulation_dtype(dtype)
        assert_close(
            got, terms.mean(), kind="reduced", magnitude=max(terms.abs().mean().item(), leaf.abs().mean().item())
        )
        (g,), (e,) = torch.autograd.grad(got, x), torch.autograd.grad(terms.mean(), leaf)
        assert_close(g, e, kind="reduced", magnitude=max(e.abs().max().item(), 1 / x.numel()))


@pytest.mark.parametrize("mode", MODES)
def test_list_of_scales_is_the_sum(mode):
    scales = [draw_values((2, 1, n, n), "normal", n, torch.float32) for n in (9, 5, 1)]
    loss = losses.GANLoss(mode)
    assert_close(loss(scales, True), sum(loss(x, True).double() for x in scales), kind="reduced", magnitude=4.0)


def test_an_unknown_mode_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"least.*vanilla.*lsgan.*wgangp.*hinge.*nonsaturating"):
        losses.GANLoss("least")


def test_is_a_module_without_state_that_follows_the_prediction():
    loss = losses.GANLoss("lsgan", 0.9, 0.1)
    assert isinstance(loss, torch.nn.Module)
    assert loss.double()(torch.zeros(3, dtype=torch.float64), True).item() == pytest.approx(0.81)
    assert "lsgan" in repr(loss)
