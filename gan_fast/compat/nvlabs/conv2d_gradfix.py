"""torch_utils.ops.conv2d_gradfix: convolutions whose weight gradients can be left out, by `gan_fast.ops`.

    with conv2d_gradfix.no_weight_gradients():
        (g,) = torch.autograd.grad([logits.sum()], [images], create_graph=True)

A backward pass that runs inside the block computes no gradient of a convolution's weight, whichever way it was asked,
and the double backward of what it made, outside the block, computes all of them. `enabled` (True here) and
`weight_gradients_disabled` are attributes of the module that can be read and set; with `enabled = False` the two
functions are torch's own and the block does nothing, as in the originals.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gan_fast import _C, ops

__all__ = ["conv2d", "conv_transpose2d", "no_weight_gradients"]

Size = int | Sequence[int]


class _State:
    """The two flags, kept in step with the switch that the backward passes read."""

    def __init__(self) -> None:
        self.enabled, self.disabled = True, False

    def set(self, *, enabled: bool | None = None, disabled: bool | None = None) -> None:
        self.enabled = self.enabled if enabled is None else bool(enabled)
        self.disabled = self.disabled if disabled is None else bool(disabled)
        _C.set_convolution_weight_gradients(not (self.enabled and self.disabled))


_state = _State()


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, lean to any order of gradient."""
    conv = ops.conv2d if _state.enabled else torch.conv2d
    return conv(input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """`torch.nn.functional.conv_transpose2d`, lean to any order of gradient."""
    conv = ops.conv_transpose2d if _state.enabled else torch.conv_transpose2d
    return conv(input, weight, bias, stride, padding, output_padding, groups, dilation)


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Backward passes inside the block compute no gradients of convolution weights; with `disable=False` they do."""
    before = _state.disabled
    if disable:
        _state.set(disabled=True)
    try:
        yield
    finally:
        _state.set(disabled=before)


class _Flags(ModuleType):
    """A module with two attributes that do something when they are set."""

    @property
    def enabled(self) -> bool:
        return _state.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        _state.set(enabled=value)

    @property
    def weight_gradients_disabled(self) -> bool:
        return _state.disabled

    @weight_gradients_disabled.setter
    def weight_gradients_disabled(self, value: bool) -> None:
        _state.set(disabled=value)


def reset() -> None:
    """Both flags as they were at first."""
    _state.set(enabled=True, disabled=False)


_module: Any = sys.modules[__name__]
_module.__class__ = _Flags
