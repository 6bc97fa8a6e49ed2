"""A linear layer y = x w^T + b."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.ops._serves import serves

_linear = torch.ops.gan_fast.linear.default


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` with a lean double backward.

    `input` is `[..., I]`, `weight` `[O, I]`; arguments, result and errors are torch's. Any order of gradient.
    """
    if input.dim() < 2 or weight.dim() != 2 or not serves(input, weight, bias):
        return F.linear(input, weight, bias)
    return _linear(input, weight, bias)
