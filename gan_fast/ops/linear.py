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
    plain = serves(input, weight, bias) and input.dim() >= 2 and weight.dim() == 2
    if not plain or (bias is not None and bias.dim() > 1):  # torch adds a bias of more dimensions too
        return F.linear(input, weight, bias)
    return _linear(input, weight, bias)
