"""Fully connected networks: shapes, ranges, initial weights, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gan_fast import models


@pytest.mark.parametrize("shape", [(2,), (7,), (3, 8, 8)])
def test_shapes_and_range(shape):
    generator, critic = models.build("mlp", shape=list(shape), latent_dim=5, width=16, depth=2, seed=0)
    samples = generator(100 * torch.randn(4, 5))
    assert samples.shape == (4, *shape)
    assert (samples.abs().max() <= 1) == (len(shape) == 3), "images are in [-1, 1], points are free"
    logits = critic(samples)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert all(p.grad is not None for network in (generator, critic) for p in network.parameters())
    assert sum(isinstance(m, nn.Linear) for m in critic.modules()) == 3


def test_activations_keep_their_size():
    generator, critic = models.build("mlp", shape=[512], latent_dim=512, width=512, depth=6, seed=1)
    x = torch.randn(256, 512)
    assert 0.7 < generator(x).std() < 1.4
    assert 0.4 < critic(x).std() < 2.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"shape": [2, 2]}, r"\[D\] for points or \[C, H, W\] for images, got \[2, 2\]"),
        ({"shape": [0]}, "each side of shape must be a positive whole number, got 0"),
        ({"width": 0}, "width must be a positive"),
        ({"depth": 1.5}, "depth must be a positive whole number, got 1.5"),
    ],
)
def test_refusals(config, message):
    with pytest.raises(ValueError, match=message):
        models.build("mlp", **config)


def test_wrong_inputs():
    generator, critic = models.build("mlp", shape=[2], latent_dim=5, seed=0)
    with pytest.raises(ValueError, match=r"latents must be \[N, 5\], got \[3, 4\]"):
        generator(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"samples must be \[N, 2\], got \[3, 3\]"):
        critic(torch.zeros(3, 3))
