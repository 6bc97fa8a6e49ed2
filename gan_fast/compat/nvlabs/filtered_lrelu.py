"""torch_utils.ops.filtered_lrelu: leaky ReLU between an upsampling and a downsampling filter, by `gan_fast.ops`."""

from __future__ import annotations

from torch import Tensor

from gan_fast import ops
from gan_fast.compat.nvlabs._impl import implementation
from gan_fast.compat.nvlabs.upfirdn2d import Numbers, _get_filter_size

__all__ = ["_filtered_lrelu_ref", "_get_filter_size", "_init", "filtered_lrelu"]


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Numbers = 0,
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "cuda",
) -> Tensor:
    """`gan_fast.ops.filtered_lrelu`; a negative clamp is none. impl "ref" runs the plain PyTorch reference."""
    limit = clamp if clamp is not None and clamp >= 0 else None
    with implementation(impl):
        return ops.filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, limit, flip_filter)


def _filtered_lrelu_ref(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Numbers = 0,
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> Tensor:
    return filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, impl="ref")


def _init() -> bool:
    """Training scripts call this to build the plugin before they start; there is none to build."""
    return True
