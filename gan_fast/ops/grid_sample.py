"""Images read at given places: bilinear, zero outside, corners not aligned.

For (gx, gy) in `grid` the place in pixels is px = ((gx + 1) W - 1) / 2, py alike, and the result is the mean of its
four neighbours weighted by 1 - distance along each axis. Sampling and both of its gradients are torch's own kernels,
whose double backward is exact; what is added is that half-precision images keep a grid of full precision.

Source: Jaderberg et al. 2015, Spatial Transformer Networks, section 3.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grid_sample(input: Tensor, grid: Tensor) -> Tensor:
    """`torch.nn.functional.grid_sample` with mode bilinear, padding zeros and align_corners False.

    Args:
        input: images `[N, C, H, W]`, float64, float32, bfloat16 or float16.
        grid: places `[N, H', W', 2]` as (x, y), -1 to 1 from edge to edge. A grid in float32 (float64) with images in a
            narrower dtype stays so: the images are widened for the call, for a place rounded to bfloat16 would be off
            by up to 1/512 of the image.

    Returns:
        `[N, C, H', W']` in the dtype of `input`. Differentiable with respect to both to second order, exactly (between
        the lines where a neighbour changes); no gradient is computed for a grid that does not require one.

    Raises:
        ValueError: shapes other than these.
        TypeError: integer tensors.
    """
    if input.dim() != 4 or grid.dim() != 4 or grid.shape[3] != 2 or grid.shape[0] != input.shape[0]:
        raise ValueError(
            f"grid_sample got input {list(input.shape)} and grid {list(grid.shape)}; expected [N, C, H, W] and "
            "[N, H', W', 2] with the same N"
        )
    if not (input.is_floating_point() and grid.is_floating_point()):
        raise TypeError(f"grid_sample got {input.dtype} and {grid.dtype}; expected floating-point tensors")
    wide = torch.promote_types(input.dtype, grid.dtype)
    sampled = F.grid_sample(input.to(wide), grid.to(wide), "bilinear", "zeros", False)
    return sampled.to(input.dtype)
