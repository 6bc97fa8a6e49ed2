"""R3GAN's networks: residual, without normalisation, started by Fixup so that every block begins as the identity.

    block     x + W3 act(W2 act(W1 x + b1) + b2)      W1, W3 1x1, W2 a grouped 3x3; `expansion` times as wide inside
    stage     resample by 2 with [1, 2, 1], a 1x1 convolution where the width changes, then `blocks` blocks
    G         basis [C, 4, 4] * (A z) -> stages up to the resolution -> 1x1 to the image
    D         1x1 from the image -> the same stages in reverse -> depthwise 4x4 -> linear to one logit

act is leaky ReLU of slope 0.2. Initial weights are N(0, g^2 / inputs) with g^2 = 2 / (1 + 0.2^2), times L^(-1/4) in W1
and W2 for the L blocks of the network, 0 in W3: Fixup's rule for branches of three layers (Zhang et al., "Fixup
Initialization", 2019). Biases are 0.

Nothing mixes samples, so `penalties.critic_backward` serves the critic with its shared plan. Source: Huang et al., "The
GAN is dead; long live the GAN! A Modern Baseline GAN", 2024, section 4 and appendix; 2 blocks a stage, an expansion of
2 and 16 channels a group inside are its.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast import ops
from gan_fast.models.batch import BatchLayers, check_packing

SLOPE = 0.2
_GAIN = math.sqrt(2 / (1 + SLOPE**2))
_START = 4
_FILTER = (1, 2, 1)


def _draw(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Weights N(0, gain^2 / inputs), inputs the values that one output sums over; biases 0."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Block(nn.Module):
    """`[N, C, H, W]` to the same shape; the identity at first. `scale` is L^(-1/4)."""

    def __init__(self, width: int, expansion: int, group_size: int, scale: float) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = nn.Conv2d(width, inner, 1)
        self.spatial = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_size)
        self.project = nn.Conv2d(inner, width, 1, bias=False)
        for layer in (self.expand, self.spatial):
            _draw(layer, _GAIN * scale)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.expand(x), SLOPE)
        y = F.leaky_relu(self.spatial(y), SLOPE)
        return x + self.project(y)


class Resample(nn.Module):
    """Twice (`up`) or half the side, then the new width by a 1x1 convolution; that comes first where it is cheaper."""

    resample_filter: Tensor

    def __init__(self, before: int, after: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.register_buffer("resample_filter", ops.setup_filter(list(_FILTER)), persistent=False)
        self.convolution = nn.Conv2d(before, after, 1, bias=False) if before != after else None
        if self.convolution is not None:
            _draw(self.convolution)

    def forward(self, x: Tensor) -> Tensor:
        # A 1x1 convolution and a filter commute: the convolution goes where the image is small.
        if self.up:
            x = x if self.convolution is None else self.convolution(x)
            return ops.upsample2d(x, self.resample_filter)
        x = ops.downsample2d(x, self.resample_filter)
        return x if self.convolution is None else self.convolution(x)


def _stage(width: int, blocks: int, expansion: int, group_size: int, scale: float) -> list[nn.Module]:
    return [Block(width, expansion, group_size, scale) for _ in range(blocks)]


class Generator(nn.Module):
    """Latents `[N, latent_dim]` to images `[N, channels, H, H]`. The range is not bounded: training puts it to [-1, 1].

    `widths` are channels by stage from 4x4 up: H = 4 * 2^(len(widths) - 1).
    """

    def __init__(
        self, channels: int, widths: Sequence[int], *, latent_dim: int, blocks: int, expansion: int, group_size: int
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        scale = (blocks * len(widths)) ** -0.25
        self.basis = nn.Parameter(torch.randn(widths[0], _START, _START))
        self.linear = nn.Linear(latent_dim, widths[0], bias=False)
        _draw(self.linear)
        layers = _stage(widths[0], blocks, expansion, group_size, scale)
        for before, after in itertools.pairwise(widths):
            layers.append(Resample(before, after, up=True))
            layers += _stage(after, blocks, expansion, group_size, scale)
        self.stages = nn.Sequential(*layers)
        self.to_image = nn.Conv2d(widths[-1], channels, 1)
        _draw(self.to_image)

    def forward(self, latents: Tensor) -> Tensor:
        if latents.dim() != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents must be [N, {self.latent_dim}], got {list(latents.shape)}")
        x = self.linear(latents)[:, :, None, None] * self.basis
        image: Tensor = self.to_image(self.stages(x))
        return image


class Critic(nn.Module):
    """Images `[N, channels, H, H]` to raw logits `[N]`. `widths` from 4x4 up, as of the generator."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        *,
        blocks: int,
        expansion: int,
        group_size: int,
        batch: BatchLayers = BatchLayers(),  # noqa: B008 (a NamedTuple of numbers)
    ) -> None:
        super().__init__()
        self.shape = (channels, _START << (len(widths) - 1), _START << (len(widths) - 1))
        scale = (blocks * len(widths)) ** -0.25
        down = list(reversed(widths))
        self.from_image = nn.Conv2d(channels, down[0], 1)
        _draw(self.from_image)
        layers = _stage(down[0], blocks, expansion, group_size, scale)
        for before, after in itertools.pairwise(down):
            layers.append(Resample(before, after, up=False))
            layers += _stage(after, blocks, expansion, group_size, scale)
        deviation, width = batch.make_stddev(down[-1])
        self.stages = nn.Sequential(*layers, *deviation)
        self.basis = nn.Conv2d(width, width, _START, groups=width, bias=False)
        _draw(self.basis)
        closeness, features = batch.make_discrimination(width)
        self.closeness = nn.Sequential(*closeness)
        self.linear = nn.Linear(features, 1, bias=False)
        _draw(self.linear)

    @property
    def logit_layer(self) -> nn.Module:
        """The layer that makes features into logits."""
        return self.linear

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(f"images must be [N, {', '.join(map(str, self.shape))}], got {list(images.shape)}")
        logits: Tensor = self.linear(self.closeness(self.basis(self.stages(self.from_image(images))).flatten(1)))
        return logits.flatten()


def widths_for(resolution: int, base_channels: int, max_channels: int) -> list[int]:
    """Channels by stage from 4x4 up: `base_channels` at full resolution, doubled at each halving up to the most."""
    stages = int(math.log2(resolution)) - 1
    return [min(base_channels << (stages - 1 - i), max_channels) for i in range(stages)]


def build(
    resolution: int = 32,
    channels: int = 3,
    *,
    latent_dim: int = 64,
    base_channels: int = 192,
    max_channels: int = 192,
    blocks: int = 2,
    expansion: int = 2,
    group_size: int = 16,
    packing: int = 1,
    minibatch_stddev: int = 0,
    minibatch_discrimination: int = 0,
) -> tuple[Generator, Critic]:
    """The pair for images `[channels, resolution, resolution]`. ValueError for sizes the networks cannot have.

    The critic scores `packing` images at once, `[N, packing * channels, R, R]`, and may look at its batch
    (`BatchLayers`).
    """
    numbers = {"latent_dim": latent_dim, "channels": channels, "base_channels": base_channels, "blocks": blocks}
    numbers |= {"max_channels": max_channels, "expansion": expansion, "group_size": group_size}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}")
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of two from 8, got {resolution}")
    widths = widths_for(resolution, base_channels, max_channels)
    for width in widths:
        if width * expansion % group_size:
            raise ValueError(
                f"{width} channels times an expansion of {expansion} do not divide into groups of {group_size}: choose "
                "base_channels and max_channels so that they do"
            )
    own = {"blocks": blocks, "expansion": expansion, "group_size": group_size}
    check_packing(packing)
    batch = BatchLayers(minibatch_stddev, minibatch_discrimination)
    generator = Generator(channels, widths, latent_dim=latent_dim, **own)
    return generator, Critic(channels * packing, widths, batch=batch, **own)
