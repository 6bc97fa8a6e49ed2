"""op.upfirdn2d: pad, upsample, filter, downsample, by `gan_fast.ops.upfirdn2d`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gan_fast import ops

__all__ = ["upfirdn2d", "upfirdn2d_native"]


def upfirdn2d(
    input: Tensor,
    kernel: Tensor,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    pad: Sequence[int] = (0, 0),
) -> Tensor:
    """input `[N, C, H, W]`, kernel `[kh, kw]`; `pad` is (before, after) for both axes, or (x0, x1, y0, y1)."""
    sides = list(pad) * 2 if len(pad) == 2 else list(pad)
    return ops.upfirdn2d(input, kernel, up, down, sides)


def upfirdn2d_native(
    input: Tensor,
    kernel: Tensor,
    up_x: int,
    up_y: int,
    down_x: int,
    down_y: int,
    pad_x0: int,
    pad_x1: int,
    pad_y0: int,
    pad_y1: int,
) -> Tensor:
    """The same with every number on its own."""
    return ops.upfirdn2d(input, kernel, (up_x, up_y), (down_x, down_y), (pad_x0, pad_x1, pad_y0, pad_y1))
