"""The other implementation on CUDA: cuDNN's shared convolution between two fused passes, which the rule measures.

forward          w conv (s x), then d, noise, bias, activation, gain and clamp in one pass      (`ops.bias_act`)
input gradient   w^T conv (d dz), then s g and ds in one pass
weight gradient  of d dz and s x, each written once
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype
from gan_fast.triton.plans import order_of

_bias_act = torch.ops.gan_fast.bias_act.default
_bias_act_backward = torch.ops.gan_fast.bias_act_backward.default
_convolution_backward = torch.ops.aten.convolution_backward.default


def _scaled(x: Tensor, v: Tensor | None) -> Tensor:
    return x if v is None else _bias_act(x, None, v, None, 1, 0, 0.0, 1.0, -1.0)


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
        u = _bias_act(u, bias, d, noise, 1, act, alpha, gain, clamp)
    return u.contiguous(memory_format=order_of(x))


def input_gradient(
    dz: Tensor, w: Tensor, s: Tensor | None, d: Tensor | None, x: Tensor | None, padding: int
) -> tuple[Tensor, Tensor]:
    """dx, and ds where x is given."""
    g = F.conv_transpose2d(_scaled(dz, d), w, padding=padding)
    if x is None:
        return _scaled(g, s).contiguous(memory_format=order_of(dz)), dz.new_empty(0, dtype=accumulate_dtype(dz))
    # the backward of a scaling by s: s g, and the sums of g x
    v = s if s is not None else dz.new_ones(x.shape[:2], dtype=accumulate_dtype(dz))
    dx, _, ds, _ = _bias_act_backward(g, x, None, None, v, None, 1, 0, 0.0, 1.0, -1.0, [True, False, True, False])
    return dx.contiguous(memory_format=order_of(dz)), ds


def weight_gradient(dz: Tensor, x: Tensor, s: Tensor | None, d: Tensor | None, size: int, padding: int) -> Tensor:
    """dw, channels_last."""
    # of which only the shape is read; in another memory order than x it would be copied into that
    shape = (dz.shape[1], x.shape[1], size, size)
    like = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order_of(x))
    both, one = [padding, padding], [1, 1]
    dw: Tensor = _convolution_backward(
        _scaled(dz, d), _scaled(x, s), like, None, one, both, one, False, [0, 0], 1, [False, True, False]
    )[1]
    return dw.contiguous(memory_format=torch.channels_last)
