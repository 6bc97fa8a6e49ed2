"""Fully connected networks: G: z [N, latent_dim] -> samples [N, *shape];  D: samples -> logits [N].

    G = f o (relu o linear)^depth          f linear; for images its tanh, so that they are in [-1, 1]
    D = linear o (leaky_relu o linear)^depth

For points in the plane and small images. Nothing in them mixes samples. The depth of 3 is that of the toy experiments
in Gulrajani et al., "Improved Training of Wasserstein GANs", 2017 (there ReLU in both and a width of 512). Initial
weights are N(0, 2 / inputs), which keeps the size of activations through ReLU layers (He et al. 2015); the last
layer's N(0, 1 / inputs); biases 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gan_fast.models.batch import BatchLayers, check_packing

LEAK = 0.2


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}")


def _layers(sizes: Sequence[int], activation: nn.Module, batch: BatchLayers = BatchLayers()) -> nn.Sequential:  # noqa: B008
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), activation]
    seen, features = batch.make(sizes[-2])
    network = nn.Sequential(*layers, *seen, nn.Linear(features, sizes[-1]))
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer in linear:
            gain = 1.0 if layer is linear[-1] else 2.0
            nn.init.normal_(layer.weight, 0.0, math.sqrt(gain / layer.in_features))
            nn.init.zeros_(layer.bias)
    return network


class Generator(nn.Module):
    """Latents [N, latent_dim] to samples [N, *shape]; images, whose `shape` is (C, H, W), are in [-1, 1]."""

    def __init__(self, shape: Sequence[int], *, latent_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.latent_dim = latent_dim
        self.layers = _layers([latent_dim, *[width] * depth, math.prod(shape)], nn.ReLU())

    def forward(self, latents: Tensor) -> Tensor:
        if latents.dim() != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents must be [N, {self.latent_dim}], got {list(latents.shape)}")
        samples = self.layers(latents).unflatten(1, self.shape)
        return samples.tanh() if len(self.shape) > 1 else samples


class Critic(nn.Module):
    """Samples [N, *shape] to raw logits [N]; before the last layer it may look at the batch."""

    def __init__(self, shape: Sequence[int], *, width: int, depth: int, batch: BatchLayers = BatchLayers()) -> None:  # noqa: B008
        super().__init__()
        self.shape = tuple(shape)
        self.layers = _layers([math.prod(shape), *[width] * depth, 1], nn.LeakyReLU(LEAK), batch)

    @property
    def logit_layer(self) -> nn.Module:
        """The layer that makes features into logits."""
        return self.layers[-1]

    def forward(self, samples: Tensor) -> Tensor:
        if tuple(samples.shape[1:]) != self.shape:
            raise ValueError(f"samples must be [N, {', '.join(map(str, self.shape))}], got {list(samples.shape)}")
        return self.layers(samples.flatten(1)).flatten()


def build(
    shape: Sequence[int] = (2,),
    *,
    latent_dim: int = 64,
    width: int = 128,
    depth: int = 3,
    packing: int = 1,
    minibatch_stddev: int = 0,
    minibatch_discrimination: int = 0,
) -> tuple[Generator, Critic]:
    """The pair, for samples of `shape`: (D,) for points or (C, H, W) for images. ValueError for any other sizes.

    The critic scores `packing` samples at once, `[N, packing * D]` or `[N, packing * C, H, W]`, and may look at its
    batch (`BatchLayers`).
    """
    if len(shape) not in (1, 3):
        raise ValueError(f"shape must be [D] for points or [C, H, W] for images, got {list(shape)}")
    _check_positive(latent_dim=latent_dim, width=width, depth=depth, **{"each side of shape": min(shape)})
    generator = Generator(shape, latent_dim=latent_dim, width=width, depth=depth)
    check_packing(packing)
    batch = BatchLayers(minibatch_stddev, minibatch_discrimination)
    return generator, Critic((shape[0] * packing, *shape[1:]), width=width, depth=depth, batch=batch)
