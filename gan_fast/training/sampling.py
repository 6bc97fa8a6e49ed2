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
from gan_fast.models import stylegan2
from gan_fast.training import checkpoint

_BATCH = 256
_PIXELS = 1 << 20


def seeded_latents(seeds: Sequence[int], size: int) -> Tensor:
    """`[len(seeds), size]` on the CPU, each row from its own seed."""
    stream = torch.Generator()
    return torch.stack([torch.randn(size, generator=stream.manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample(
    generator: nn.Module, seeds: Sequence[int], latent_size: int, classes: Sequence[int] | None = None
) -> Tensor:
    """Images `[N, C, H, W]` in [-1, 1], points `[N, D]` or sounds `[N, 1, T]`, fp32 on the CPU, from a generator in
    evaluation mode.

    A conditional generator draws one class for each seed, `classes`, or by default class s mod their number for seed s.
    """
    device = next(generator.parameters()).device
    latents = seeded_latents(seeds, latent_size)
    if not isinstance(generator, stylegan2.Generator):
        samples = torch.cat([generator(part.to(device)).float().cpu() for part in latents.split(_BATCH)])
        # Generators without a bounding last layer overshoot black and white a little.
        return samples.clamp_(-1, 1) if samples.ndim == 4 else samples
    batch = max(1, min(_BATCH, _PIXELS // generator.img_resolution**2))
    labels = torch.zeros(len(latents), generator.c_dim)
    if generator.c_dim:
        chosen = torch.tensor(list(seeds if classes is None else classes)) % generator.c_dim
        labels[torch.arange(len(latents)), chosen] = 1
    images = [
        generator(z.to(device), c.to(device), noise_mode="const").float().cpu()
        for z, c in zip(latents.split(batch), labels.split(batch), strict=True)
    ]
    # Its last layer is linear.
    return torch.cat(images).clamp_(-1, 1)


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

    def samples(self, seeds: Sequence[int], classes: Sequence[int] | None = None) -> Tensor:
        """Images `[N, C, H, W]` in [-1, 1], or points `[N, D]`, fp32 on the CPU."""
        return sample(self.generator, seeds, self.latent_size, classes)
