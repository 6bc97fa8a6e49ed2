"""Convolutions y = A(x; w) + b in one to three dimensions, plain and transposed.

    x: Ax(dy; w)      w: Aw(dy, x)      and of dx = Ax(dy; w):  dy: A(t; w)   w: Aw(dy, t)

Source: the calculus of a form that is linear in x, in w and in dy; see `csrc/common/bilinear.h`.

The products are torch's own, on every device. On the CPU, 3x3 kernels at stride 1 without groups or dilation run by
Winograd's F(2x2, 3x3) in float32 (and float64) where there are channels and pixels enough: 4/9 of the multiplications,
values that differ from torch's by rounding. GAN_FAST_WINOGRAD=never keeps torch's; `always` takes them wherever they
can. Source: Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks"; see `csrc/convolution/winograd.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.ops._serves import serves

Size = int | Sequence[int]
_convolution = torch.ops.gan_fast.convolution.default


# What these give in memory, channels last or not, is aten's choice and depends on the device. Only aten's own fakes
# know the device: traced below the dispatcher it would be taken for the meta device, and compiled code would read the
# result in the wrong order.
@torch.library.register_fake("gan_fast::convolution")
def _fake(x: Tensor, w: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
    return torch.ops.aten.convolution.default(x, w, bias, *geometry)


@torch.library.register_fake("gan_fast::convolution_input_gradient")
def _fake_input_gradient(dy: Tensor, x: Tensor, w: Tensor, *geometry: Any) -> Tensor:
    return torch.ops.aten.convolution_backward.default(dy, x, w, None, *geometry, [True, False, False])[0]


@torch.library.register_fake("gan_fast::convolution_weight_gradient")
def _fake_weight_gradient(dy: Tensor, x: Tensor, w: Tensor, *geometry: Any) -> Tensor:
    return torch.ops.aten.convolution_backward.default(dy, x, w, None, *geometry, [False, True, False])[1]


def _sizes(value: Size, dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else (list(value) * dims if len(value) == 1 else list(value))


def _make(dims: int, torch_conv: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def conv(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
    ) -> Tensor:
        # torch's own function also where it raises: its messages are the ones people know
        if input.dim() != dims + 2 or not serves(input, weight, bias) or (padding == "same" and stride not in _ONES):
            return torch_conv(input, weight, bias, stride, padding, dilation, groups)
        steps = _sizes(dilation, dims)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                return torch_conv(input, weight, bias, stride, padding, dilation, groups)
            totals = [d * (k - 1) if padding == "same" else 0 for d, k in zip(steps, weight.shape[2:], strict=True)]
            odd = [total % 2 for total in totals]
            if any(odd):  # as torch does: the extra row goes to the end
                input = F.pad(input, [side for extra in reversed(odd) for side in (0, extra)])
            padding = [total // 2 for total in totals]
        pads = _sizes(padding, dims)
        return _convolution(input, weight, bias, _sizes(stride, dims), pads, steps, False, [0] * dims, groups)

    return _documented(conv, f"conv{dims}d", dims)


def _make_transposed(dims: int, torch_conv: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def conv_transpose(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        dilation: Size = 1,
    ) -> Tensor:
        if input.dim() != dims + 2 or not serves(input, weight, bias):
            return torch_conv(input, weight, bias, stride, padding, output_padding, groups, dilation)
        geometry = (_sizes(v, dims) for v in (stride, padding, dilation))
        return _convolution(input, weight, bias, *geometry, True, _sizes(output_padding, dims), groups)

    return _documented(conv_transpose, f"conv_transpose{dims}d", dims)


def _documented(function: Any, name: str, dims: int) -> Callable[..., Tensor]:
    shape = "[N, C, " + ", ".join("DHW"[3 - dims :]) + "]"
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""`torch.nn.functional.{name}` with a lean double backward.

    `input` is `{shape}`; arguments, result (up to rounding) and errors are torch's. float64, float32, bfloat16 and
    float16; any order of gradient. Runs torch's own function for unbatched input, under `gan_fast.reference_mode()`,
    under `torch.func` transforms and forward-mode AD, and for tensors that are not plain dense floating-point ones.
    """
    return function


_ONES = (1, (1,), (1, 1), (1, 1, 1), [1], [1, 1], [1, 1, 1])

conv1d = _make(1, torch.conv1d)
conv2d = _make(2, torch.conv2d)
conv3d = _make(3, torch.conv3d)
conv_transpose1d = _make_transposed(1, torch.conv_transpose1d)
conv_transpose2d = _make_transposed(2, torch.conv_transpose2d)
conv_transpose3d = _make_transposed(3, torch.conv_transpose3d)
