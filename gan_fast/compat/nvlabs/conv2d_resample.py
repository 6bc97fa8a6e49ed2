"""torch_utils.ops.conv2d_resample: a convolution with up- or downsampling, by `gan_fast.ops`."""

from __future__ import annotations

from torch import Tensor

from gan_fast import ops
from gan_fast.compat.nvlabs import conv2d_gradfix
from gan_fast.compat.nvlabs.upfirdn2d import Numbers, _get_filter_size, _parse_padding

__all__ = ["_conv2d_wrapper", "_get_filter_size", "_get_weight_shape", "_parse_padding", "conv2d_resample"]


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Numbers = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """`gan_fast.ops.conv2d_resample`."""
    return ops.conv2d_resample(x, w, f, up, down, padding, groups, flip_weight, flip_filter)


def _get_weight_shape(w: Tensor) -> list[int]:
    return list(w.shape)


def _conv2d_wrapper(
    x: Tensor,
    w: Tensor,
    stride: Numbers = 1,
    padding: Numbers = 0,
    groups: int = 1,
    transpose: bool = False,
    flip_weight: bool = True,
) -> Tensor:
    """Correlation with w, or its transpose; with `flip_weight=False` convolution."""
    if not flip_weight:
        w = w.flip([2, 3])
    conv = conv2d_gradfix.conv_transpose2d if transpose else conv2d_gradfix.conv2d
    return conv(x, w, stride=stride, padding=padding, groups=groups)
