"""Samples of a trained generator: sample k of seed s is G_ema(z), z ~ N(0, I) from a stream seeded with s + k.

So a sample belongs to its seed alone, whatever else is made beside it, on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_fast import models
from gan_fast.training import checkpoint

_BATCH = 256


def seeded_latents(seeds: Sequence[int], size: int) -> Tensor:
    """`[len(seeds), size]` on the CPU, each row from its own seed."""
    stream = torch.Generator()
    return torch.stack([torch.randn(size, generator=stream.manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample(generator: nn.Module, seeds: Sequence[int], latent_size: int) -> Tensor:
    """Images `[N, C, H, W]` in [-1, 1], or points `[N, D]`, fp32 on the CPU, from a generator in evaluation mode."""
    device = next(generator.parameters()).device
    batches = seeded_latents(seeds, latent_size).split(_BATCH)
    samples = torch.cat([generator(latents.to(device)).float().cpu() for latents in batches])
    # Generators without a bounding last layer overshoot black and white a little.
    return samples.clamp_(-1, 1) if samples.ndim == 4 else samples


class Sampler:
    """The averaged generator of a checkpoint."""

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """`path` is a run folder or a checkpoint; CheckpointError where it cannot be used."""
        self.folder = checkpoint.latest(path)
        self.state: dict[str, Any] = checkpoint.read_state(self.folder)
        model = self.state["model"]
        self.generator, _ = models.build(model["name"], seed=0, **model["config"])
        self.generator.load_state_dict(checkpoint.load_group(self.folder, "ema"))
        self.generator.requires_grad_(False).eval().to(device)
        self.latent_size = int(self.state["latent_size"])

    def samples(self, seeds: Sequence[int]) -> Tensor:
        """Images `[N, C, H, W]` in [-1, 1], or points `[N, D]`, fp32 on the CPU."""
        return sample(self.generator, seeds, self.latent_size)
