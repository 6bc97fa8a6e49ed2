"""torch_utils.ops.upfirdn2d: pad, upsample, filter, downsample, by `gan_fast.ops`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gan_fast import ops
from gan_fast.compat.nvlabs._impl import implementation
from gan_fast.ops import setup_filter

__all__ = [
    "_get_filter_size",
    "_init",
    "_parse_padding",
    "_parse_scaling",
    "_upfirdn2d_ref",
    "downsample2d",
    "filter2d",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]

Numbers = int | Sequence[int]


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Numbers = 1,
    down: Numbers = 1,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """`gan_fast.ops.upfirdn2d`; impl "ref" runs the plain PyTorch reference."""
    with implementation(impl):
        return ops.upfirdn2d(x, f, up, down, padding, flip_filter, gain)


def filter2d(
    x: Tensor,
    f: Tensor | None,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """`gan_fast.ops.filter2d`."""
    with implementation(impl):
        return ops.filter2d(x, f, padding, flip_filter, gain)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Numbers = 2,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """`gan_fast.ops.upsample2d`."""
    with implementation(impl):
        return ops.upsample2d(x, f, up, padding, flip_filter, gain)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Numbers = 2,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """`gan_fast.ops.downsample2d`."""
    with implementation(impl):
        return ops.downsample2d(x, f, down, padding, flip_filter, gain)


def _upfirdn2d_ref(
    x: Tensor,
    f: Tensor | None,
    up: Numbers = 1,
    down: Numbers = 1,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    return upfirdn2d(x, f, up, down, padding, flip_filter, gain, impl="ref")


def _parse_scaling(scaling: Numbers) -> tuple[int, int]:
    """(x, y) of a factor or of [x, y]."""
    sx, sy = (scaling, scaling) if isinstance(scaling, int) else scaling
    if min(sx, sy) < 1:
        raise ValueError(f"scaling factors must be 1 or more, got {scaling!r}")
    return int(sx), int(sy)


def _parse_padding(padding: Numbers) -> tuple[int, int, int, int]:
    """(x0, x1, y0, y1) of one number, of [x, y] or of all four."""
    numbers = [padding] if isinstance(padding, int) else [int(number) for number in padding]
    if len(numbers) not in (1, 2, 4):
        raise ValueError(f"padding must be one number, [x, y] or [x0, x1, y0, y1], got {padding!r}")
    if len(numbers) == 4:
        return numbers[0], numbers[1], numbers[2], numbers[3]
    x, y = numbers[0], numbers[-1]
    return x, x, y, y


def _get_filter_size(f: Tensor | None) -> tuple[int, int]:
    """(width, height) of a filter `[n]` or `[fh, fw]`; of None (1, 1)."""
    if f is None:
        return 1, 1
    if f.dim() not in (1, 2):
        raise ValueError(f"a filter has one or two dimensions, got {list(f.shape)}")
    return int(f.shape[-1]), int(f.shape[0])


def _init() -> bool:
    """Training scripts call this to build the plugin before they start; there is none to build."""
    return True
