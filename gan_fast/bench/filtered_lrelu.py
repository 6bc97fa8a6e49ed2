"""`filtered_lrelu` in a StyleGAN3-like layer: up 2, down 2, 12 taps, in float32, against the same in plain PyTorch.

Images `[4, 64, 64, 64]` give as many pixels of result and 4.9 million in between. The reference inserts zeros, pads and
filters along each axis. The best composition that PyTorch has is a transposed depthwise convolution for the upsampling
and a strided one for the downsampling, in the layout that suits them, channels_last: with the filter's matrix, which is
the faster one forward, or along one axis after the other, which is the faster one backward. The faster of the two
through `torch.compile` is the compiled baseline.

Images and filters are multiples of 1/8 and 1/64, so that every contender has the same signs in between, and so the same
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops
from gan_fast.bench.cases import Case, Contender, Prepared, Role
from gan_fast.bench.losses import compiled
from gan_fast.reference import filtered_lrelu as reference

SHAPE = (4, 64, 64, 64)
TAPS = (1, 1, 3, 6, 9, 12, 12, 9, 6, 3, 1, 1)
PADDING = [11, 10, 11, 10]
GAIN, SLOPE, CLAMP = 2**0.5, 0.2, 256.0
NAMES = ("gan_fast", "reference", "convolutions", "convolutions along each axis", "torch.compile")
# Least ratios to the reference, to the faster composition, and to the compiled one.
TARGETS: dict[Role, float] = {"reference": 6.0, "eager": 3.0, "compiled": 2.0}

Layer = Callable[[Tensor, Tensor], Tensor]


def convolutions(taps: Tensor, channels: int) -> Layer:
    """U and D as depthwise convolutions with a matrix; the taps are the same read either way."""
    matrix = torch.outer(taps, taps).expand(channels, 1, -1, -1).contiguous()

    def layer(x: Tensor, b: Tensor) -> Tensor:
        t = F.conv_transpose2d(x + b[:, None, None], 4 * matrix, stride=2, groups=channels)
        return F.conv2d(_activated(t), matrix, stride=2, groups=channels)

    return layer


def separable(taps: Tensor, channels: int) -> Layer:
    """The same along one axis after the other."""
    column = taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1).contiguous()
    row = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1).contiguous()

    def layer(x: Tensor, b: Tensor) -> Tensor:
        t = F.conv_transpose2d(x + b[:, None, None], 2 * row, stride=(1, 2), groups=channels)
        t = F.conv_transpose2d(t, 2 * column, stride=(2, 1), groups=channels)
        z = F.conv2d(_activated(t), column, stride=(2, 1), groups=channels)
        return F.conv2d(z, row, stride=(1, 2), groups=channels)

    return layer


def _activated(t: Tensor) -> Tensor:
    return (F.leaky_relu(t, SLOPE) * GAIN).clamp(-CLAMP, CLAMP)


def _job(layer: Layer, x: Tensor, b: Tensor, *, backward: bool) -> Callable[[], Sequence[Tensor]]:
    if not backward:
        return lambda: [layer(x, b)]

    def run() -> Sequence[Tensor]:
        y = layer(x, b)
        return [y, *torch.autograd.grad(y, (x, b), y.detach())]

    return run


def case(*, backward: bool, shape: tuple[int, ...] = SHAPE) -> Case:
    """One job on images of `shape`."""

    def build(device: torch.device) -> Prepared:
        generator = torch.Generator().manual_seed(0)
        x = (torch.randint(-16, 17, shape, generator=generator) / 8).to(device)
        b = (torch.randint(-16, 17, shape[1:2], generator=generator) / 8).to(device)
        taps = torch.tensor(TAPS, device=device) / 64

        def ours(x: Tensor, b: Tensor) -> Tensor:
            return ops.filtered_lrelu(x, taps, taps, b, 2, 2, PADDING, GAIN, SLOPE, CLAMP)

        def plain(x: Tensor, b: Tensor) -> Tensor:
            return reference.filtered_lrelu(x, taps, taps, b, 2, 2, PADDING, GAIN, SLOPE, CLAMP, False)

        def leaves(wide: bool = False, last: bool = False) -> tuple[Tensor, Tensor]:
            image = x.double() if wide else x.contiguous(memory_format=torch.channels_last) if last else x
            bias = b.double() if wide else b
            return image.detach().clone().requires_grad_(backward), bias.detach().clone().requires_grad_(backward)

        matrix, axes = convolutions(taps, shape[1]), separable(taps, shape[1])
        faster = axes if backward else matrix
        contenders = (
            Contender("gan_fast", "ours", _job(ours, *leaves(), backward=backward)),
            Contender("reference", "reference", _job(plain, *leaves(), backward=backward)),
            Contender("convolutions", "eager", _job(matrix, *leaves(last=True), backward=backward)),
            Contender("convolutions along each axis", "eager", _job(axes, *leaves(last=True), backward=backward)),
            Contender("torch.compile", "compiled", _job(compiled(faster), *leaves(last=True), backward=backward)),
        )
        truth = tuple(t.detach() for t in _job(plain, *leaves(wide=True), backward=backward)())
        return Prepared(contenders, truth)

    size = torch.Size(shape).numel()
    return Case(
        name=f"filtered_lrelu/{'forward+backward' if backward else 'forward'}/{size}",
        group="filtered leaky ReLU",
        size=size,
        traffic=4 * size * (4 if backward else 2),
        contenders=NAMES,
        build=build,
        targets=TARGETS if shape == SHAPE else {},
        quick=False,
    )


def cases() -> list[Case]:
    """Forward alone, and forward and backward."""
    return [case(backward=False), case(backward=True)]
