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
from gan_fast.training.feed import to_one_hot

_BATCH = 256
_PIXELS = 1 << 20


def seeded_latents(seeds: Sequence[int], size: int) -> Tensor:
    """`[len(seeds), size]` on the CPU, each row from its own seed."""
    stream = torch.Generator()
    return torch.stack([torch.randn(size, generator=stream.manual_seed(seed)) for seed in seeds])


def chosen_classes(seeds: Sequence[int], classes: Sequence[int] | None, known: int) -> Tensor:
    """The class of each seed, int64 `[N]`: what was asked for, or s mod `known` for seed s; 0 where none is known."""
    return torch.tensor(list(seeds if classes is None else classes), dtype=torch.int64) % max(known, 1)


def requested_classes(
    generator: nn.Module, seeds: Sequence[int], classes: Sequence[int] | None = None
) -> Tensor | None:
    """The class that each sample of a generator is asked to be, int64 `[N]`; None of an unconditional one."""
    known = models.classes_of(generator)
    return chosen_classes(seeds, classes, known) if known else None


def require_latents(latent_size: int, source: object = "this") -> None:
    """ValueError for a generator that takes images, `latent_size` 0."""
    if not latent_size:
        raise ValueError(f"{source} is a generator that takes images, not seeds: use `gan-fast translate`")


@torch.no_grad()
def sample(
    generator: nn.Module, seeds: Sequence[int], latent_size: int, classes: Sequence[int] | None = None
) -> Tensor:
    """Images `[N, C, H, W]` in [-1, 1], points `[N, D]` or sounds `[N, 1, T]`, fp32 on the CPU, from a generator in
    evaluation mode.

    A conditional generator draws one class for each seed, `classes`, or by default class s mod their number for seed s.
    """
    require_latents(latent_size)
    device = next(generator.parameters()).device
    latents = seeded_latents(seeds, latent_size)
    known = models.classes_of(generator)
    labels = to_one_hot(chosen_classes(seeds, classes, known), known, torch.device("cpu"))
    if not isinstance(generator, stylegan2.Generator):
        inputs = (latents, labels) if known else (latents,)
        parts = zip(*(x.split(_BATCH) for x in inputs), strict=True)
        samples = torch.cat([generator(*(x.to(device) for x in part)).float().cpu() for part in parts])
        # Generators without a bounding last layer overshoot black and white a little.
        return samples.clamp_(-1, 1) if samples.ndim == 4 else samples
    batch = max(1, min(_BATCH, _PIXELS // generator.img_resolution**2))
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

    def requested(self, seeds: Sequence[int], classes: Sequence[int] | None = None) -> Tensor | None:
        """The class that each of `samples` was asked to be, int64 `[N]`; None of an unconditional generator."""
        return requested_classes(self.generator, seeds, classes)

    def samples(self, seeds: Sequence[int], classes: Sequence[int] | None = None) -> Tensor:
        """Images `[N, C, H, W]` in [-1, 1], or points `[N, D]`, fp32 on the CPU."""
        return sample(self.generator, seeds, self.latent_size, classes)
