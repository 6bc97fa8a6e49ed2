"""The two layers that both networks are made of, at equalised learning rate.

    FullyConnectedLayer   y = act(x (g W)^T + m b)           g = m / sqrt(inputs), m the learning-rate multiplier
    Conv2dLayer           y = clamp(gain act(conv(x, g W) + b))      g = 1 / sqrt(inputs k^2); up- or downsampling by f

Weights are drawn from N(0, 1) (from N(0, 1/m^2) under a multiplier) and scaled at run time, so that Adam moves every
layer at the same relative speed. Sources: Karras et al. 2018 (ProGAN), section 4.1; 2019 (StyleGAN), section C; 2020
(StyleGAN2), appendix B.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gan_fast import ops
from gan_fast._modes import has_autocast

LOW_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
ARCHITECTURES = ("orig", "skip", "resnet")
# Activations whose output is multiplied by sqrt(2), which keeps the variance of what goes in.
_ROOT_TWO = {"relu", "lrelu", "swish"}


def default_gain(activation: str) -> float:
    """What an activation's output is multiplied by."""
    return math.sqrt(2) if activation in _ROOT_TWO else 1.0


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_resolution(resolution: int, at_least: int = 4) -> None:
    whole = isinstance(resolution, int) and not isinstance(resolution, bool)
    if not whole or resolution < at_least or resolution & (resolution - 1):
        raise ValueError(
            f"img_resolution must be a power of two from {at_least}, got {resolution!r}: resize the images"
        )


def check_positive(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}")


def check_batch(name: str, x: Tensor, *shape: int) -> None:
    """`x` is `[N, *shape]`."""
    if x.dim() != len(shape) + 1 or tuple(x.shape[1:]) != shape:
        raise ValueError(f"{name} must be [N, {', '.join(map(str, shape))}], got {list(x.shape)}")


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature maps at a side: channel_base / side, between 1 and channel_max."""
    return max(1, min(channel_base // resolution, channel_max))


def low_precision_from(img_resolution: int, count: int) -> int:
    """The side from which the `count` highest resolutions begin; the 4x4 block is never among them."""
    return max(2 * img_resolution >> count, 8)


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-8) over the last dimension."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-8).rsqrt()


def low_pass(taps: Sequence[float]) -> Tensor:
    """The resampling filter. It is a few numbers, so it is there even while a network is built on the meta device."""
    with torch.device("cpu"):
        return ops.setup_filter(list(taps))


def own_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Autocast off: these networks choose the precision of every block themselves."""
    kind = x.device.type
    if has_autocast(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


class Precision(nn.Module):
    """A block that may run in half precision: `low_precision` is "fp16", "bf16" or None, to be set at any time.

    fp16 is for CUDA devices: elsewhere such a block runs in the dtype of its weights, as float16 is slow and barely
    supported there. bf16 runs on every device. Weights stay in float32 either way.
    """

    def __init__(self, low_precision: str | None, channels_last: bool | None) -> None:
        super().__init__()
        if low_precision is not None:
            check_choice("low_precision", low_precision, tuple(LOW_PRECISIONS))
        self.low_precision = low_precision
        self.channels_last = channels_last

    def place(self, x: Tensor, weight: Tensor, force_fp32: bool) -> Tensor:
        """`x` in this block's dtype and memory format. `weight` has the dtype of full precision."""
        dtype = weight.dtype
        if self.low_precision is not None and not force_fp32 and (self.low_precision == "bf16" or x.is_cuda):
            dtype = LOW_PRECISIONS[self.low_precision]
        last = self.channels_last
        if last is None:
            # On CPUs 1.1 times faster over a whole network: processor time of one AVX-512 core, forward and backward
            # at 64x64, batch 8, channel base 8192: G 0.89 to 0.80 s, D 0.79 to 0.70 s. Tensor cores want it too.
            last = x.device.type == "cpu" or dtype != weight.dtype
        return x.to(dtype=dtype, memory_format=torch.channels_last if last else torch.contiguous_format)


class FullyConnectedLayer(nn.Module):
    """`[N, in_features]` to `[N, out_features]`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init))) if bias else None
        # D.mapping of an unconditional network has no inputs and is never built; a layer of 0 inputs is all bias.
        self.weight_gain = lr_multiplier / math.sqrt(max(in_features, 1))
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.weight_gain
        bias: Tensor | None = self.bias
        if bias is not None and self.bias_gain != 1:
            bias = bias * self.bias_gain
        if self.activation == "linear":
            return ops.linear(x, weight, bias)
        return ops.bias_act(ops.linear(x, weight), bias, act=self.activation)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, activation={self.activation}"


class Conv2dLayer(nn.Module):
    """`[N, in, H, W]` to `[N, out, H up / down, W up / down]`."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", low_pass(resample_filter))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        # A linear layer without bias or clamp takes its gain with the weights: no pass over the features.
        bare = self.activation == "linear" and self.bias is None and self.conv_clamp is None
        x = ops.conv2d_resample(
            x,
            (self.weight * (self.weight_gain * gain if bare else self.weight_gain)).to(x.dtype),
            self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            # Trained networks hold the kernels of upsampling layers in the orientation of a transposed convolution.
            flip_weight=self.up == 1,
        )
        if bare:
            return x
        return ops.bias_act(
            x,
            self.bias,
            act=self.activation,
            gain=default_gain(self.activation) * gain,
            clamp=None if self.conv_clamp is None else self.conv_clamp * gain,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.weight.shape[2]}, up={self.up}, "
            f"down={self.down}, activation={self.activation}"
        )
