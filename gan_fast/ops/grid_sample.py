"""Images read at given places: bilinear, zero outside, corners not aligned.

For (gx, gy) in `grid` the place in pixels is px = ((gx + 1) W - 1) / 2, py alike, and the result is the sum of its four
neighbours weighted by 1 - distance along each axis.

Source: Jaderberg et al. 2015, Spatial Transformer Networks, section 3.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast._modes import use_reference

_grid_sample = torch.ops.gan_fast.grid_sample.default


def grid_sample(input: Tensor, grid: Tensor) -> Tensor:
    """`torch.nn.functional.grid_sample` with mode bilinear, padding zeros and align_corners False.

    The samples and both first gradients are torch's own kernels on every device. Gradients of gradients, which torch
    has only in its newest versions, are put together from the same kernels: with a grid that needs no gradient, as in
    an augmentation, every order costs one more sampling or its adjoint, and nothing is computed for the grid.

    Args:
        input: images `[N, C, H, W]`, float64, float32, bfloat16 or float16.
        grid: places `[N, H', W', 2]` as (x, y), -1 to 1 from edge to edge; of any floating dtype. Images and places in
            half precision are widened for the call, and a float32 grid stays so beside half-precision images: a place
            rounded to bfloat16 would be off by up to 1/512 of the image.

    Returns:
        `[N, C, H', W']` in the dtype of `input`, channels_last where it is. Differentiable with respect to both to any
        order, between the lines where a neighbour changes.

    Raises:
        ValueError: shapes other than these.
        TypeError: integer tensors.

    Under `torch.func` transforms and forward-mode AD torch's function serves, with the derivatives it has.
    """
    if input.dim() != 4 or grid.dim() != 4 or grid.shape[3] != 2 or grid.shape[0] != input.shape[0]:
        raise ValueError(
            f"grid_sample got input {list(input.shape)} and grid {list(grid.shape)}; expected [N, C, H, W] and "
            "[N, H', W', 2] with the same N"
        )
    if not (input.is_floating_point() and grid.is_floating_point()):
        raise TypeError(f"grid_sample got {input.dtype} and {grid.dtype}; expected floating-point tensors")
    wide = torch.promote_types(torch.promote_types(input.dtype, grid.dtype), torch.float32)
    x, places = input.to(wide), grid.to(wide)
    sampled = F.grid_sample(x, places, "bilinear", "zeros", False) if use_reference() else _grid_sample(x, places)
    return sampled.to(input.dtype)
