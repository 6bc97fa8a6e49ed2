"""op.fused_act: scale * leaky_relu(input + bias), by `gan_fast.ops.bias_act`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gan_fast import ops

__all__ = ["FusedLeakyReLU", "fused_leaky_relu"]

_ROOT_2 = 2.0**0.5


def fused_leaky_relu(
    input: Tensor, bias: Tensor | None = None, negative_slope: float = 0.2, scale: float = _ROOT_2
) -> Tensor:
    """scale * leaky_relu(input + bias): input `[N, C, *]`, bias `[C]`."""
    return ops.bias_act(input, bias, 1, "lrelu", negative_slope, scale)


class FusedLeakyReLU(nn.Module):
    """`fused_leaky_relu` with a learned bias, zero at first."""

    def __init__(self, channel: int, bias: bool = True, negative_slope: float = 0.2, scale: float = _ROOT_2) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channel)) if bias else None
        self.negative_slope = negative_slope
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)
