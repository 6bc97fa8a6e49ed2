"""Convolution with optional up- or downsampling by a low-pass filter."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gan_fast._modes import has_autocast, use_reference
from gan_fast.ops.convolution import conv2d
from gan_fast.ops.upfirdn2d import upfirdn2d
from gan_fast.reference import conv2d_resample as reference
from gan_fast.reference.conv2d_resample import Padding, Products

_input_gradient = torch.ops.gan_fast.convolution_input_gradient.default


def _conv_transpose2d(x: Tensor, w: Tensor, stride: int, groups: int) -> Tensor:
    """`torch.nn.functional.conv_transpose2d` as what it is, the input gradient of a convolution.

    To oneDNN the two are different: in bfloat16 from (8, 256, 32, 32) to 128 maps of 65 x 65 the one takes 15.6 ms, the
    other 6.0; in float32 27 and 27 (one core, channels_last, least of 9).
    """
    height, width = ((n - 1) * stride + k for n, k in zip(x.shape[2:], w.shape[2:], strict=True))
    shape = (x.shape[0], w.shape[1] * groups, height, width)
    like = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout(x))
    return _input_gradient(x, like, w, [stride] * 2, [0, 0], [1, 1], False, [0, 0], groups)


LEAN = Products(conv2d, _conv_transpose2d, upfirdn2d)


def in_autocast_dtype(*tensors: Tensor) -> list[Tensor]:
    """As torch casts what a convolution gets: every tensor in autocast's dtype where it is on, float64 left alone."""
    device = tensors[0].device.type
    if not has_autocast(device) or not torch.is_autocast_enabled(device):
        return list(tensors)
    narrow = torch.get_autocast_dtype(device)
    return [t if t.dtype == torch.float64 else t.to(narrow) for t in tensors]


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast off on the device of x, where it is on; a context of it costs more than a small op."""
    device = x.device.type
    on = has_autocast(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample by `up` with `f` (gain `up^2`), convolve with `w`, downsample by `down` with `f`: in the cheapest order.

    Args:
        x: `[N, I, H, W]`, float64, float32, bfloat16 or float16.
        w: `[O, I / groups, kh, kw]`, of the dtype of `x`.
        f: the low-pass filter, `[fh, fw]`, or `[taps]` if separable, float32, as `setup_filter` gives it; None is the
            identity. It carries no gradient.
        up, down: whole factors.
        padding: a number, `[x, y]` or `[x0, x1, y0, y1]`, in pixels of the upsampled image, in addition to what keeps
            the resampled image where it is. Negative numbers crop.
        groups: as in `torch.nn.functional.conv2d`.
        flip_weight: True correlates with `w`, as torch does; False convolves.
        flip_filter: False convolves with `f`; True correlates.

    Returns:
        `[N, O, H', W']` in the dtype (under autocast in its) and the memory layout of `x`, with
        H' = (H up + y0 + y1 - (fh - 1 where up > 1) - (kh - 1) - (fh - 1 where down > 1) - 1) // down + 1, where y0 and
        y1 include what keeps the image in place: (fh + up - 1) // 2 and (fh - up) // 2, and alike for down.

    Raises:
        ValueError: shapes that do not fit together, or factors below 1.

    Differentiable to any order in `x` and `w`. The order of steps is the reference's (`gan_fast.reference`), which also
    says why they commute. Source: Karras et al. 2020, appendix B; interface of StyleGAN2-ADA.
    """
    check(x, w, up, down, padding, groups)
    x, w = in_autocast_dtype(x, w)
    products = reference.PLAIN if use_reference() else LEAN
    y = reference.conv2d_resample(x, w, f, up, down, padding, groups, flip_weight, flip_filter, products)
    return y.contiguous(memory_format=layout(x))  # channels_last weights draw torch's convolutions to channels_last


def layout(x: Tensor) -> torch.memory_format:
    """channels_last or contiguous; of images of one channel or one pixel, which are both, what the strides say."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    if last and x.stride(1) == 1 and (x.shape[1] == 1 or x.stride(3) != 1):
        return torch.channels_last
    return torch.contiguous_format


def check(x: Tensor, w: Tensor, up: int, down: int, padding: Padding, groups: int = 1) -> None:
    """What `conv2d_resample` and the modulated convolutions ask of their arguments alike."""
    if x.dim() != 4 or w.dim() != 4:
        raise ValueError(
            f"x is {list(x.shape)} and the weight {list(w.shape)}; expected [N, I, H, W] and [O, I / groups, kh, kw]"
        )
    if x.shape[1] != w.shape[1] * groups:
        raise ValueError(
            f"x has {x.shape[1]} channels, but the weight {list(w.shape)} with groups={groups} takes "
            f"{w.shape[1] * groups}; give as many of one as of the other"
        )
    for name, factor in (("up", up), ("down", down)):
        if not isinstance(factor, int) or factor < 1:
            raise ValueError(f"{name} is {factor!r}; expected a whole number of at least 1")
    if not isinstance(padding, int) and len(padding) not in (2, 4):
        raise ValueError(f"padding is {padding!r}; expected a number, [x, y] or [x0, x1, y0, y1]")
