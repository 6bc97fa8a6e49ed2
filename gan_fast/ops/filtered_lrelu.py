r"""Leaky ReLU without aliasing: bias, upsample, leaky ReLU, gain, clamp, downsample, in one pass.

    y = D(clamp(gain lrelu(U(x + b)), -c, c))

with U and D the resampling of `upfirdn2d`: upsample by `up` and filter with fu, filter with fd and keep every `down`-th
pixel. The image in between, `up`^2 times as large, is never in memory; for the gradients 2 bits a pixel of it are.

Source: Karras et al. 2021 (StyleGAN3), section 3.1; `gan_fast/reference/filtered_lrelu.py` has it in full.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gan_fast._modes import use_reference
from gan_fast.reference import filtered_lrelu as reference
from gan_fast.reference.upfirdn2d import taps

_filtered_lrelu = torch.ops.gan_fast.filtered_lrelu.default


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> Tensor:
    """Leaky ReLU at `up` times the resolution, back at 1 / `down` of that.

    Args:
        x: images `[N, C, H, W]`, float64, float32, bfloat16 or float16, in any memory layout.
        fu, fd: the filters after upsampling and before downsampling, on the device of x: `[fh, fw]`, or `[n]`, applied
            along both axes, or None, the identity. Of any floating dtype; they have no gradient.
        b: a bias `[C]`, of any floating dtype.
        up, down: factors, at least 1. The upsampled image is multiplied by up^2, which keeps its brightness under a
            filter of sum one.
        padding: pixels of the upsampled image, one number, [x, y] or [x0, x1, y0, y1]; negative ones crop.
        gain: a factor after the leaky ReLU.
        slope: of the leaky ReLU for values that are not positive.
        clamp: the largest magnitude after the gain, or None.
        flip_filter: False convolves with the filters, True correlates.

    Returns:
        `[N, C, H', W']` with H' = (H up + y0 + y1 - (fu height - 1) - fd height) // down + 1, in the dtype of x and
        channels_last where x is. Everything between is float32 (float64 for float64). Differentiable with respect to x
        and b to any order: piecewise linear, so a second derivative is one more pass with the same mask. Under autocast
        the dtype stays that of x.

    Raises:
        ValueError: x that is not `[N, C, H, W]`; a filter of another shape, on another device, or one that requires
            grad; b that is not `[C]`; a factor below 1; a negative clamp; padding that is not one, two or four
            numbers; a result without pixels.
        TypeError: x, b or a filter that is not floating-point.

    Under `torch.func` transforms and forward-mode AD the plain reference serves.
    """
    pads = _padding(padding)
    _check(x, fu, fd, b, up, down, pads, clamp)
    limit = None if clamp is None else float(clamp)
    arguments = (x, fu, fd, b, up, down, pads, float(gain), float(slope), limit, flip_filter)
    if use_reference():
        return reference.filtered_lrelu(*arguments)
    return _filtered_lrelu(*arguments, False)[0]


def _check(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: Sequence[int],
    clamp: float | None,
) -> None:
    """Raises on everything that can be seen without reading data."""
    if x.dim() != 4:
        raise ValueError(f"filtered_lrelu got x of shape {list(x.shape)}; expected images [N, C, H, W]")
    for name, f in (("fu", fu), ("fd", fd)):
        if f is None:
            continue
        if f.dim() not in (1, 2) or 0 in f.shape:
            raise ValueError(f"filtered_lrelu got {name} of shape {list(f.shape)}; expected [n], [fh, fw] or None")
        if f.device != x.device:
            raise ValueError(f"filtered_lrelu got x on {x.device} and {name} on {f.device}; move {name} to {x.device}")
        if f.requires_grad:
            raise ValueError(f"filtered_lrelu got {name} that requires grad; filters have no gradient: detach it")
    for name, t in (("x", x), ("fu", fu), ("fd", fd), ("b", b)):
        if t is not None and not t.is_floating_point():
            raise TypeError(f"filtered_lrelu got {name} of {t.dtype}; expected a floating-point tensor")
    if b is not None and (b.dim() != 1 or b.shape[0] != x.shape[1] or b.device != x.device):
        raise ValueError(
            f"filtered_lrelu got b of shape {list(b.shape)} on {b.device}; expected [{x.shape[1]}], one number a "
            f"channel of x, on {x.device}"
        )
    if up < 1 or down < 1:
        raise ValueError(f"filtered_lrelu got up={up} and down={down}; expected factors of at least 1")
    if clamp is not None and clamp < 0:
        raise ValueError(f"filtered_lrelu got clamp={clamp}; expected a magnitude of at least 0, or None")
    height, width = reference.output_size(x, fu, fd, up, down, padding)
    if height < 1 or width < 1:
        (uw, uh), (dw, dh) = taps(fu), taps(fd)
        raise ValueError(
            f"filtered_lrelu has no result: x of {list(x.shape[2:])}, up={up}, down={down}, padding={list(padding)} "
            f"and filters of {uh} x {uw} and {dh} x {dw} give {height} x {width} pixels; give more padding"
        )


def _padding(padding: int | Sequence[int]) -> list[int]:
    """As [x0, x1, y0, y1]."""
    if isinstance(padding, int):
        return [padding] * 4
    pads = [int(p) for p in padding]
    if len(pads) == 2:
        return [pads[0], pads[0], pads[1], pads[1]]
    if len(pads) != 4:
        raise ValueError(f"filtered_lrelu got padding of {len(pads)} numbers; expected one, [x, y] or [x0, x1, y0, y1]")
    return pads
