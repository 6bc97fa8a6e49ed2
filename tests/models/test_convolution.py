"""`gan_fast.models.convolution.Conv2d` beside `nn.Conv2d`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gan_fast.models.convolution import Conv2d


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("padding", [1, "same"])
def test_as_torchs_layer(mode: str, padding: int | str) -> None:
    torch.manual_seed(0)
    ours = Conv2d(24, 32, 3, padding=padding, padding_mode=mode)
    theirs = nn.Conv2d(24, 32, 3, padding=padding, padding_mode=mode)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    x = torch.randn(4, 24, 20, 18).requires_grad_()
    found = []
    for layer in (ours, theirs):
        y = layer(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6 * float(b.detach().abs().max()))
