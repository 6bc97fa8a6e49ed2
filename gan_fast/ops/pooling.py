"""Average and maximum pooling: linear maps (maxima: between the kinks) and their adjoints.

One-dimensional pooling is the two-dimensional one of images of height 1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.ops._serves import serves

Size = Any  # as torch takes it: a number, or a sequence of one or two
_avg_pool = torch.ops.gan_fast.avg_pool.default
_max_pool = torch.ops.gan_fast.max_pool.default
_torch_max_pool1d: Any = F.max_pool1d
_torch_max_pool2d: Any = F.max_pool2d


def _pair(value: Size) -> list[int]:
    return [value, value] if isinstance(value, int) else (list(value) * 2 if len(value) == 1 else list(value))


def _row(value: Size, rest: int) -> list[int]:
    return [rest, value if isinstance(value, int) else value[0]]


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """`torch.nn.functional.avg_pool2d` of `[N, C, H, W]` with a lean double backward."""
    if input.dim() != 4 or not serves(input):
        return F.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    kernel = _pair(kernel_size)
    steps = _pair(stride) if stride is not None and stride != [] and stride != () else kernel
    return _avg_pool(input, kernel, steps, _pair(padding), ceil_mode, count_include_pad, divisor_override)


def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """`torch.nn.functional.avg_pool1d` of `[N, C, L]` with a lean double backward."""
    if input.dim() != 3 or not serves(input):
        return F.avg_pool1d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)
    kernel = _row(kernel_size, 1)
    steps = _row(stride, 1) if stride is not None and stride != [] and stride != () else kernel
    y = _avg_pool(input.unsqueeze(2), kernel, steps, _row(padding, 0), ceil_mode, count_include_pad, None)
    return y.squeeze(2)


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`torch.nn.functional.max_pool2d` of `[N, C, H, W]` with a lean double backward."""
    if input.dim() != 4 or not serves(input):
        return _torch_max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    kernel = _pair(kernel_size)
    steps = _pair(stride) if stride is not None and stride != [] and stride != () else kernel
    y, indices = _max_pool(input, kernel, steps, _pair(padding), _pair(dilation), ceil_mode)
    return (y, indices) if return_indices else y


def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`torch.nn.functional.max_pool1d` of `[N, C, L]` with a lean double backward."""
    if input.dim() != 3 or not serves(input):
        return _torch_max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    kernel = _row(kernel_size, 1)
    steps = _row(stride, 1) if stride is not None and stride != [] and stride != () else kernel
    y, indices = _max_pool(input.unsqueeze(2), kernel, steps, _row(padding, 0), _row(dilation, 1), ceil_mode)
    return (y.squeeze(2), indices.squeeze(2)) if return_indices else y.squeeze(2)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """`torch.nn.functional.adaptive_avg_pool2d`: lean where the output size divides the input's."""
    if input.dim() == 4 and serves(input):
        wanted = _pair(output_size) if isinstance(output_size, int) else list(output_size)
        sides = list(input.shape[2:])
        out = [side if size is None else size for side, size in zip(sides, wanted, strict=False)]
        if len(wanted) == 2 and all(o > 0 and side % o == 0 and side > 0 for side, o in zip(sides, out, strict=True)):
            return avg_pool2d(input, [side // o for side, o in zip(sides, out, strict=True)])
    return F.adaptive_avg_pool2d(input, output_size)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """`torch.nn.functional.adaptive_avg_pool1d`: lean where the output size divides the input's."""
    size = output_size if isinstance(output_size, int) else output_size[0]
    if input.dim() == 3 and serves(input) and size > 0 and input.shape[2] and input.shape[2] % size == 0:
        return avg_pool1d(input, input.shape[2] // size)
    return F.adaptive_avg_pool1d(input, output_size)
