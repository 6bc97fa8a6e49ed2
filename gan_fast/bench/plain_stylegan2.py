"""StyleGAN2's layers as a careful user composes them from PyTorch's own functions: the baseline of the step benchmark.

    filter             depthwise convolution, channels_last
    up, down           transposed and strided convolution and the filter, in the cheapest order
    modulation         one shared convolution of scaled images: of the two formulations the faster one in this step
    bias, activation   the gain folded into the operands, the activation in place: two passes, three with noise

What loses is not here: separable filters (two convolutions of 1x4 taps take as long as one of 4x4), filters as sums of
shifted images (ten times as long), contiguous images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops

_ROOT_TWO = 2**0.5
_last = torch.channels_last


def _depthwise(x: Tensor, f: Tensor, gain: float) -> Tensor:
    """The filter as weights: symmetrical ones, so that convolution and correlation are the same."""
    h = f if f.dim() == 2 else torch.outer(f, f)
    return (h * gain).to(x.dtype).expand(x.shape[1], 1, *h.shape)


def low_pass(x: Tensor, f: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    return F.conv2d(x, _depthwise(x, f, gain), padding=padding, groups=x.shape[1])


def halve(x: Tensor, f: Tensor, padding: int) -> Tensor:
    """Filter and keep every second pixel. oneDNN's strided depthwise gradient is five times as slow in bfloat16."""
    if x.dtype == torch.bfloat16:
        return low_pass(x, f, padding)[:, :, ::2, ::2]
    return F.conv2d(x, _depthwise(x, f, 1.0), stride=2, padding=padding, groups=x.shape[1])


def upsample2d(x: Tensor, f: Tensor) -> Tensor:
    return F.conv_transpose2d(x, _depthwise(x, f, 4.0), stride=2, padding=1, groups=x.shape[1])


def conv2d_resample(
    x: Tensor, w: Tensor, f: Tensor, up: int = 1, down: int = 1, padding: int = 0, flip_weight: bool = True
) -> Tensor:
    """Kernels 3x3 with padding 1 and 1x1 without, factors 1 and 2, a filter of 4x4."""
    if w.shape[-1] == 1:
        x = halve(x, f, 1) if down == 2 else x
        y = F.conv2d(x, w)
        return upsample2d(y, f) if up == 2 else y
    if up == 2:
        w = w.flip([2, 3]) if flip_weight else w
        return low_pass(F.conv_transpose2d(x, w.transpose(0, 1), stride=2), f, 1, 4.0)
    return F.conv2d(low_pass(x, f, 2), w, stride=2) if down == 2 else F.conv2d(x, w, padding=padding)


def bias_act(
    x: Tensor,
    b: Tensor | None,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """linear and leaky ReLU of slope 0.2, which a positive gain goes through."""
    gain = (_ROOT_TWO if act == "lrelu" else 1.0) if gain is None else gain
    shape = [1, -1] + [1] * (x.dim() - 2)
    bias = None if b is None else (b * gain if gain != 1 else b).to(x.dtype).view(shape)
    if scale is not None:
        s = (scale * gain).to(x.dtype)[:, :, None, None]
        x = x * s if noise is None else torch.addcmul((noise * gain).to(x.dtype), x, s)
        x = x if bias is None else x.add_(bias)
    elif bias is not None:
        # Compiled, add(bias, x @ w, alpha=gain) loses the gain (torch 2.11.0 and 2.14.1).
        x = torch.add(bias, x, alpha=gain) if x.dim() > 2 else x * gain + bias
    elif gain != 1:
        x = x * gain
    x = F.leaky_relu(x, 0.2, inplace=bias is not None) if act == "lrelu" else x
    return x if clamp is None else x.clamp(-clamp, clamp)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    padding: int = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    *,
    bias: Tensor | None = None,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    d = (styles.square() @ weight.square().sum([2, 3]).t() + 1e-8).rsqrt() if demodulate else None
    x = x * styles.to(x.dtype)[:, :, None, None]
    f = torch.empty(0) if resample_filter is None else resample_filter
    y = conv2d_resample(x, weight.to(x.dtype), f, up, 1, padding, flip_weight)
    return bias_act(y, bias, act, gain, clamp, d, noise)


REPLACED: dict[str, Any] = {
    "bias_act": bias_act,
    "conv2d_resample": conv2d_resample,
    "linear": F.linear,
    "modulated_conv2d": modulated_conv2d,
    "upsample2d": upsample2d,
}


@contextmanager
def composed() -> Iterator[None]:
    """Inside, `gan_fast.models.stylegan2` is made of these functions."""
    before = {name: getattr(ops, name) for name in REPLACED}
    try:
        for name, function in REPLACED.items():
            setattr(ops, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(ops, name, function)
