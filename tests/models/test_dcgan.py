"""models.dcgan: shapes over resolutions, channels and norms; the paper's initial weights; clear refusals."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from gan_fast import models
from gan_fast.models.dcgan import layer_widths


@pytest.mark.parametrize(
    ("resolution", "channels", "norm", "extra"),
    [
        (r, c, n, e)
        for (r, c), n, e in itertools.product([(8, 1), (16, 3), (64, 2)], ["batch", "none", "spectral"], [0, 2])
    ],
)
def test_shapes_and_range(resolution, channels, norm, extra):
    generator, critic = models.build(
        "dcgan",
        resolution=resolution,
        channels=channels,
        critic_norm=norm,
        latent_dim=7,
        base_channels=4,
        max_channels=12,
        extra_layers=extra,
        seed=0,
    )
    images = generator(torch.randn(3, 7))
    assert images.shape == (3, channels, resolution, resolution)
    assert images.abs().max() <= 1
    logits = critic(images)
    assert logits.shape == (3,)
    logits.sum().backward()
    assert all(p.grad is not None for network in (generator, critic) for p in network.parameters())


def test_norms_are_where_the_paper_has_them():
    _, batch = models.build("dcgan", resolution=32, critic_norm="batch", seed=0)
    kinds = [type(layer).__name__ for layer in batch.layers]
    assert kinds[:4] == ["Conv2d", "LeakyReLU", "Conv2d", "BatchNorm2d"]
    _, none = models.build("dcgan", resolution=32, critic_norm="none", seed=0)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in none.modules())


def test_spectral_norm_bounds_every_layer():
    _, critic = models.build("dcgan", resolution=16, critic_norm="spectral", base_channels=8, seed=0)
    images = torch.randn(4, 3, 16, 16)
    for _ in range(30):
        critic(images)
    convolutions = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 3
    for conv in convolutions:
        top = torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2)
        torch.testing.assert_close(top, torch.ones(()), rtol=0.02, atol=0)


def test_initial_weights():
    generator, critic = models.build("dcgan", resolution=64, seed=0)
    for module in [*generator.modules(), *critic.modules()]:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.weight.numel() > 10_000:
            assert abs(module.weight.std() - 0.02) < 0.001 and abs(module.weight.mean()) < 0.001
        if isinstance(module, nn.BatchNorm2d):
            assert abs(module.weight.mean() - 1) < 0.01 and not module.bias.any()


def test_seed_decides_the_weights_and_nothing_else():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (models.build("dcgan", resolution=8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected), "building with a seed moved torch's global generator"
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert not torch.equal(next(first[0].parameters()), next(other[0].parameters()))


def test_widths_double_towards_the_small_sides_and_are_capped():
    assert layer_widths(64, 64, 512) == [64, 128, 256, 512]
    assert layer_widths(128, 64, 512) == [64, 128, 256, 512, 512]
    assert layer_widths(8, 32, 512) == [32]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resolution": 48}, "got 48; use 32 or 64"),
        ({"resolution": 4}, "power of two from 8, got 4"),
        ({"channels": 0}, "channels must be a positive"),
        ({"latent_dim": -1}, "latent_dim must be a positive"),
        ({"critic_norm": "layer"}, "critic_norm must be one of batch, none, spectral, got 'layer'"),
        ({"generator_norm": "spectral"}, "generator_norm must be one of batch, none"),
        ({"extra_layers": -1}, "extra_layers must be 0 or"),
    ],
)
def test_refusals(config, message):
    with pytest.raises(ValueError, match=message):
        models.build("dcgan", **config)


def test_wrong_inputs_and_names():
    generator, critic = models.build("dcgan", resolution=8, channels=1, latent_dim=7, seed=0)
    with pytest.raises(ValueError, match=r"latents must be \[N, 7\], got \[2, 8\]"):
        generator(torch.randn(2, 8))
    with pytest.raises(ValueError, match=r"images must be \[N, 1, 8, 8\], got \[2, 3, 8, 8\]"):
        critic(torch.randn(2, 3, 8, 8))
    with pytest.raises(ValueError, match="unknown model 'vae': known are"):
        models.build("vae")
