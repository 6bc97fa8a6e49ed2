"""torch_utils.ops.grid_sample_gradfix: bilinear sampling, zeros outside, align_corners False, by `gan_fast.ops`.

`enabled` can be set, as training scripts do; the result and its gradients of any order are the same.
"""

from __future__ import annotations

from torch import Tensor

from gan_fast import ops

__all__ = ["enabled", "grid_sample"]

enabled = True


def grid_sample(input: Tensor, grid: Tensor) -> Tensor:
    """`gan_fast.ops.grid_sample`: input `[N, C, H, W]`, grid `[N, H', W', 2]`."""
    return ops.grid_sample(input, grid)
