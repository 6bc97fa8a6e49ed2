r"""Upsample by zeros, pad or crop, filter, keep every `down`-th sample, in plain PyTorch; along each axis

    y[o] = gain sum_k h[k] u[o down + k - p0],    u[i up] = x[i], u = 0 elsewhere,    o = 0 ... size - 1

with h the filter read backwards (a convolution), or as it is with `flip_filter` (a correlation). The filter is a matrix
`[fh, fw]`, one row of taps that is applied along both axes, or None, the identity.

Linear in x, and its adjoint is the same map with `up` and `down` exchanged, the filter read the other way round and
p0' = taps - 1 - p0. `upfirdn2d_op` gives the size instead of the trailing padding, so both are calls of one function.

Source: polyphase filter banks, Vaidyanathan 1993, section 4.1; the combination of the three as in Karras et al. 2020
(StyleGAN2-ADA), appendix C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype


def taps(f: Tensor | None) -> tuple[int, int]:
    """(width, height) of a filter."""
    if f is None:
        return 1, 1
    return f.shape[-1], f.shape[0]


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """`[N, C, H, W]` to `[N, C, H', W']`; up and down are [x, y], padding [x0, x1, y0, y1]. Computed in float32, or
    float64 for float64, and rounded once; differentiable with respect to x to any order.
    """
    samples, channels, height, width = x.shape
    x0, x1, y0, y1 = padding
    u = x.to(accumulate_dtype(x)).reshape(samples, channels, height, 1, width, 1)
    u = F.pad(u, [0, up[0] - 1, 0, 0, 0, up[1] - 1]).reshape(samples, channels, height * up[1], width * up[0])
    u = F.pad(u, [max(x0, 0), max(x1, 0), max(y0, 0), max(y1, 0)])
    u = u[:, :, max(-y0, 0) : u.shape[2] - max(-y1, 0), max(-x0, 0) : u.shape[3] - max(-x1, 0)]
    if f is None:
        u = u * gain
    else:
        h = f.detach().to(u.dtype)
        h = h if flip_filter else h.flip(list(range(h.dim())))
        for weight in [h * gain] if h.dim() == 2 else [h[None, :] * gain, h[:, None]]:
            u = F.conv2d(u, weight.expand(channels, 1, *weight.shape).contiguous(), groups=channels)
    y = u[:, :, :: down[1], :: down[0]]
    return y.to(x.dtype).contiguous(memory_format=memory_format_of(x))


def upfirdn2d_op(
    x: Tensor,
    f: Tensor | None,
    up: Sequence[int],
    down: Sequence[int],
    before: Sequence[int],
    size: Sequence[int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """The same with the arguments of `torch.ops.gan_fast.upfirdn2d`: before is [x0, y0], size the result's [W', H'].

    A copy, so that sides of 1 have the strides that tracing is told.
    """
    after = [
        (n - 1) * d + t - length * u - p
        for n, d, t, length, u, p in zip(size, down, taps(f), x.shape[:1:-1], up, before, strict=True)
    ]
    padding = [before[0], after[0], before[1], after[1]]
    return upfirdn2d(x, f, up, down, padding, flip_filter, gain).clone(memory_format=memory_format_of(x))


def memory_format_of(x: Tensor) -> torch.memory_format:
    """channels_last where the strides of `x` are in that order (`Tensor::suggest_memory_format`), else contiguous."""
    least = 0
    for d in (1, 3, 2, 0):
        length, stride = x.shape[d], x.stride(d)
        if length == 0 or stride < least or (d == 0 and least == x.stride(1)):
            return torch.contiguous_format
        least = stride * length if length > 1 else stride
    return torch.channels_last
