"""The other implementation on CUDA: cuDNN's shared convolution between two fused passes, which the rule measures.

forward          w conv (s x), then d, noise, bias, activation, gain and clamp in one pass      (`ops.bias_act`)
input gradient   w^T conv (d dz), then s g and ds in one pass
weight gradient  of d dz and s x, each written once
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.ops.bias_act import bias_act
from gan_fast.reference import modulated_convolution as reference
from gan_fast.reference.adversarial_loss import accumulate_dtype
from gan_fast.reference.bias_act import NAMES
from gan_fast.reference.modulated_convolution import memory_order


def _scaled(x: Tensor, v: Tensor | None) -> Tensor:
    return x if v is None else bias_act(x, scale=v)


def forward(
    x: Tensor,
    w: Tensor,
    s: Tensor | None,
    d: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    padding: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """y, as `reference.modulated_convolution.modulated_convolution` gives it."""
    u = F.conv2d(_scaled(x, s), w, padding=padding)
    if d is not None or noise is not None or bias is not None or act or gain != 1 or clamp >= 0:
        u = bias_act(u, bias, act=NAMES[act], alpha=alpha, gain=gain, clamp=clamp, scale=d, noise=noise)
    return u.contiguous(memory_format=memory_order(x))


def input_gradient(
    dz: Tensor, w: Tensor, s: Tensor | None, d: Tensor | None, x: Tensor | None, padding: int
) -> tuple[Tensor, Tensor]:
    """dx, and ds where x is given."""
    g = F.conv_transpose2d(_scaled(dz, d), w, padding=padding)
    if x is None:
        return _scaled(g, s).contiguous(memory_format=memory_order(dz)), dz.new_empty(0, dtype=accumulate_dtype(dz))
    # the backward of a scaling by s: s g, and the sums of g x
    v = s if s is not None else dz.new_ones(x.shape[:2], dtype=accumulate_dtype(dz))
    backward = torch.ops.gan_fast.bias_act_backward.default
    dx, _, ds, _ = backward(g, x, None, None, v, None, 1, 0, 0.0, 1.0, -1.0, [True, False, True, False])
    return dx.contiguous(memory_format=memory_order(dz)), ds


def weight_gradient(dz: Tensor, x: Tensor, s: Tensor | None, d: Tensor | None, size: int, padding: int) -> Tensor:
    """dw, channels_last."""
    return reference.weight_gradient(_scaled(dz, d), _scaled(x, s), None, None, size, padding)
