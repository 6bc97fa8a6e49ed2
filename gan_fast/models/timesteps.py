"""A critic of any family that is told the timestep: logits = D(cat(x, e(t))).

    e(t) = A2 leaky_relu(A1 s(t)),    s(t) = [sin(w_i t), cos(w_i t)],    w_i = 10000^(-i / n)

e(t), learned, stands as further channels beside an image, the same at every pixel, or as further coordinates beside a
point, so that every network that can be built for more channels can be told the time: its first layer gets a bias that
depends on t. s(t) is the embedding of Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

SINUSOIDS = 32
_LONGEST = 10_000.0


def sinusoids(timesteps: Tensor) -> Tensor:
    """s(t), fp32 `[N, SINUSOIDS]`, of timesteps `[N]`."""
    half = SINUSOIDS // 2
    frequencies = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(_LONGEST) / half))
    angles = timesteps[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class TimestepEmbedding(nn.Module):
    """e(t), `[N, size]`, of timesteps `[N]`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(SINUSOIDS, SINUSOIDS), nn.LeakyReLU(0.2), nn.Linear(SINUSOIDS, size))

    def forward(self, timesteps: Tensor) -> Tensor:
        embedded: Tensor = self.layers(sinusoids(timesteps))
        return embedded


class TimestepCritic(nn.Module):
    """Samples `[N, C, H, W]` or `[N, D]` and timesteps `[N]` to raw logits `[N]`.

    `critic` takes samples of `timestep_channels` more channels, or coordinates, than those given here.
    """

    def __init__(self, critic: nn.Module, timestep_channels: int) -> None:
        super().__init__()
        self.critic = critic
        self.embedding = TimestepEmbedding(timestep_channels)

    def forward(self, samples: Tensor, timesteps: Tensor) -> Tensor:
        if timesteps.shape != samples.shape[:1]:
            raise ValueError(f"timesteps must be [{len(samples)}], one for each sample, got {list(timesteps.shape)}")
        embedded = self.embedding(timesteps).to(samples.dtype)
        planes = embedded.view(*embedded.shape, *[1] * (samples.dim() - 2)).expand(-1, -1, *samples.shape[2:])
        logits: Tensor = self.critic(torch.cat([samples, planes], 1))
        return logits.flatten()


def build(network: str = "dcgan", *, timestep_channels: int = 4, **config: Any) -> tuple[nn.Module, TimestepCritic]:
    """The generator of `models.build(network, **config)`, and its critic, told the timestep."""
    from gan_fast import models  # the table of networks, which this is an entry of

    return models.build(network, **config)[0], build_critic(network, timestep_channels=timestep_channels, **config)


def build_critic(network: str, *, timestep_channels: int, sides: int = 1, **config: Any) -> TimestepCritic:
    """A critic of that family for `sides` samples that stand side by side as channels."""
    from gan_fast import models

    if isinstance(timestep_channels, bool) or not isinstance(timestep_channels, int) or timestep_channels < 1:
        raise ValueError(f"timestep_channels must be a positive whole number, got {timestep_channels!r}")
    wider = dict(config)
    if "shape" in config:
        wider["shape"] = [sides * config["shape"][0] + timestep_channels, *config["shape"][1:]]
    else:
        wider["channels"] = sides * config["channels"] + timestep_channels
    return TimestepCritic(models.build(network, **wider)[1], timestep_channels)
