r"""Leaky ReLU of an image at a higher resolution, in plain PyTorch: U upsamples and filters, D filters and downsamples,

    t = U(x + b)        z = clamp(gain lrelu(t), -c, c)        y = D(z)

so that the high frequencies a nonlinearity makes are filtered away before they alias. Along each axis

    t[i] = up sum_k hu[k] u[i + k - p0],   u[m up] = x[m] + b, 0 elsewhere,    i = 0 ... w - 1
    y[j] = sum_k hd[k] z[j down + k]                                           w = (size - 1) down + taps of hd

U and D are linear and z is linear piece by piece, so with the slope s(t), which is gain, gain slope or (clamped) 0, all
that differentiation needs is D s U, its adjoint U* s D* and s itself: 2 bits a pixel of t, the mask.

The mask is uint8 `[N, C, ceil(h / 4), P ceil(w / P)]` with P = lcm(up, down): the code of row i and column j of t
(0: gain, 1: gain slope, 2: clamped) is in bits 2 (i mod 4) of row i / 4, column (j mod P) ceil(w / P) + j / P. Columns
of one phase lie together because the filters combine those.

Source: Karras et al. 2021, Alias-Free Generative Adversarial Networks (StyleGAN3), section 3.1 and appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype
from gan_fast.reference.upfirdn2d import memory_format_of, taps, upfirdn2d

_NONE = (0, 0, 0, 0)


def output_size(
    x: Tensor, fu: Tensor | None, fd: Tensor | None, up: int, down: int, padding: Sequence[int]
) -> tuple[int, int]:
    """(height, width) of the result."""
    x0, x1, y0, y1 = padding
    (uw, uh), (dw, dh) = taps(fu), taps(fd)
    return (
        (x.shape[2] * up + y0 + y1 - uh + 1 - dh) // down + 1,
        (x.shape[3] * up + x0 + x1 - uw + 1 - dw) // down + 1,
    )


def intermediate_size(fd: Tensor | None, down: int, size: Sequence[int]) -> tuple[int, int]:
    """(h, w): the part of t that a result of `size` (height, width) reads."""
    width, height = taps(fd)
    return (size[0] - 1) * down + height, (size[1] - 1) * down + width


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Sequence[int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
) -> Tensor:
    """`[N, C, H, W]` to `[N, C, H', W']`. In float32 (float64 for float64), rounded once; any order of gradient."""
    t = _upsampled(x, fu, b, up, padding, flip_filter)
    z = F.leaky_relu(t, slope) * gain
    if clamp is not None:
        # The derivative at the clamp itself is that of the inside; of torch.clamp it depends on the release.
        z = torch.where(z.abs() > clamp, z.detach().clamp(-clamp, clamp), z)
    return _like(_resample(z, fd, 1, down, _NONE, flip_filter), x)


def _upsampled(
    x: Tensor, fu: Tensor | None, b: Tensor | None, up: int, padding: Sequence[int], flip_filter: bool
) -> Tensor:
    x = x.to(accumulate_dtype(x))
    if b is not None:
        x = x + b.to(x.dtype)[:, None, None]
    return _resample(x, fu, up, 1, padding, flip_filter, float(up * up))


def _resample(
    x: Tensor, f: Tensor | None, up: int, down: int, padding: Sequence[int], flip_filter: bool, gain: float = 1.0
) -> Tensor:
    return upfirdn2d(x, f, (up, up), (down, down), padding, flip_filter, gain)


def _like(y: Tensor, x: Tensor) -> Tensor:
    """In the dtype and the layout of x."""
    return y.to(x.dtype).contiguous(memory_format=memory_format_of(x))


def filtered_lrelu_op(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Sequence[int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
    with_mask: bool,
) -> tuple[Tensor, Tensor]:
    """(y, mask); without `with_mask` the mask is empty."""
    y = filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter)
    if not with_mask:
        return y, torch.empty(0, dtype=torch.uint8, device=x.device)
    height, width = intermediate_size(fd, down, output_size(x, fu, fd, up, down, padding))
    t = _upsampled(x, fu, b, up, padding, flip_filter)[:, :, :height, :width]
    codes = torch.where(t > 0, 0, 1)
    if clamp is not None:
        codes = torch.where((F.leaky_relu(t, slope) * gain).abs() > clamp, 2, codes)
    mask = pack(codes, math.lcm(up, down))
    return y, mask.contiguous(memory_format=memory_format_of(x))


def pack(codes: Tensor, phases: int) -> Tensor:
    """`[N, C, h, w]` codes as a mask."""
    samples, channels, height, width = codes.shape
    rows, columns = -(-height // 4), -(-width // phases)
    codes = F.pad(codes, [0, columns * phases - width, 0, rows * 4 - height])
    codes = codes.reshape(samples, channels, rows, 4, columns, phases)
    weights = torch.tensor([1, 4, 16, 64], device=codes.device)[:, None, None]
    packed = (codes * weights).sum(3).to(torch.uint8)
    return packed.transpose(3, 4).reshape(samples, channels, rows, phases * columns)


def unpack(mask: Tensor, phases: int, height: int, width: int) -> Tensor:
    """The codes `[N, C, height, width]` of a mask."""
    samples, channels, rows, stored = mask.shape
    parts = mask.reshape(samples, channels, rows, 1, phases, stored // phases).transpose(4, 5)
    shifts = torch.tensor([0, 2, 4, 6], device=mask.device, dtype=torch.uint8)[:, None, None]
    codes = (parts >> shifts) & 3
    return codes.reshape(samples, channels, rows * 4, stored)[:, :, :height, :width]


def slopes(mask: Tensor, phases: int, height: int, width: int, gain: float, slope: float) -> Tensor:
    """s(t), `[N, C, h, w]` in float64."""
    table = torch.tensor([gain, gain * slope, 0.0, 0.0], dtype=torch.float64, device=mask.device)
    return table[unpack(mask, phases, height, width).long()]


def filtered_lrelu_tangent(
    v: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    mask: Tensor,
    up: int,
    down: int,
    padding: Sequence[int],
    gain: float,
    slope: float,
    flip_filter: bool,
) -> Tensor:
    """D s U v: what a change v of x does to y."""
    height, width = intermediate_size(fd, down, output_size(v, fu, fd, up, down, padding))
    t = _upsampled(v, fu, None, up, padding, flip_filter)[:, :, :height, :width]
    t = t * slopes(mask, math.lcm(up, down), height, width, gain, slope).to(t.dtype)
    return _like(_resample(t, fd, 1, down, _NONE, flip_filter), v)


def filtered_lrelu_backward(
    dy: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    mask: Tensor,
    size: Sequence[int],
    up: int,
    down: int,
    padding: Sequence[int],
    gain: float,
    slope: float,
    flip_filter: bool,
) -> Tensor:
    """U* s D* dy: the gradient for x, whose height and width `size` is."""
    (uw, uh), (dw, dh) = taps(fu), taps(fd)
    height, width = intermediate_size(fd, down, dy.shape[2:])
    t = dy.to(accumulate_dtype(dy))
    t = _resample(t, fd, down, 1, [dw - 1, dw - down, dh - 1, dh - down], not flip_filter)
    t = t * slopes(mask, math.lcm(up, down), height, width, gain, slope).to(t.dtype)
    x0, y0 = uw - 1 - padding[0], uh - 1 - padding[2]
    pads = [x0, (size[1] - 1) * up + uw - width - x0, y0, (size[0] - 1) * up + uh - height - y0]
    return _like(_resample(t, fu, 1, up, pads, not flip_filter, float(up * up)), dy)
