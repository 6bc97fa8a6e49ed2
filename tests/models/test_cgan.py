"""Conditional networks against their formulas, written out in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_fast import models
from gan_fast.models.cgan import ConditionalNorm

N, K, Z = 6, 3, 5
DCGAN = {"network": "dcgan", "resolution": 8, "channels": 2, "latent_dim": Z, "base_channels": 4}
MLP = {"network": "mlp", "shape": [2, 8, 8], "latent_dim": Z, "width": 7, "depth": 2}
NETWORKS = pytest.mark.parametrize("network", [DCGAN, MLP], ids=["dcgan", "mlp"])
CONDITIONINGS = pytest.mark.parametrize("conditioning", ["concat", "projection"])


def build(network, conditioning, **settings):
    pair = models.build("cgan", seed=0, conditioning=conditioning, classes=K, **network, **settings)
    for net in pair:
        net.double()
        for p in net.parameters():
            nn.init.normal_(p, std=0.3)
    return pair


def inputs():
    y = F.one_hot(torch.arange(N) % K, K).double()
    return torch.randn(N, Z).double(), torch.randn(N, 2, 8, 8).double(), y


@NETWORKS
def test_the_logit_is_psi_plus_the_projection(network):
    _, critic = build(network, "projection")
    _, x, y = inputs()
    phi = critic.phi(x)
    expected = critic.psi(phi).flatten() + torch.einsum("fk,nk,nf->n", critic.v.weight, y, phi.flatten(1))
    torch.testing.assert_close(critic(x, y), expected)
    assert critic(x, y).shape == (N,) and critic.v.weight.shape == (phi[0].numel(), K)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_gain_and_bias_are_the_class_s(batch_norm):
    norm = ConditionalNorm(4, K, batch_norm=batch_norm).double()
    torch.testing.assert_close(norm.gain.weight, torch.ones(4, K).double())
    h, (_, _, y) = torch.randn(N, 4, 3, 3).double(), inputs()
    for p in norm.parameters():
        nn.init.normal_(p)
    plain = F.batch_norm(h, None, None, training=True) if batch_norm else h
    gain, bias = (w.weight.T[torch.arange(N) % K][:, :, None, None] for w in (norm.gain, norm.bias))
    torch.testing.assert_close(norm(h, y), gain * plain + bias)


@NETWORKS
def test_concat_is_a_further_input(network):
    generator, critic = build(network, "concat")
    z, x, y = inputs()
    torch.testing.assert_close(generator(z, y), generator.inner(torch.cat([z, y], 1)))
    planes = torch.ones(N, K, 8, 8).double() * y[:, :, None, None]
    both = torch.cat([x, planes], 1) if network is DCGAN else torch.cat([x.flatten(1), y], 1)
    torch.testing.assert_close(critic(x, y), critic.inner(both))


@NETWORKS
@CONDITIONINGS
def test_both_networks_hear_the_class(network, conditioning):
    generator, critic = build(network, conditioning)
    z, x, y = inputs()
    assert models.classes_of(generator) == K and models.classes_of(models.build("dcgan")[0]) == 0
    samples = generator(z, y)
    assert samples.shape == (N, 2, 8, 8) and samples.abs().max() <= 1
    for change in (generator(z, y.roll(1, 0)) - samples, critic(x, y.roll(1, 0)) - critic(x, y)):
        assert (change.reshape(N, -1).abs().amax(1) > 1e-3).all()


def test_norms_are_as_asked():
    kinds = {"batch": nn.BatchNorm2d, "none": nn.Identity}
    for norm, kind in kinds.items():
        generator, _ = build(DCGAN, "projection", generator_norm=norm)
        own = [m.norm for m in generator.modules() if isinstance(m, ConditionalNorm)]
        assert len(own) == sum(isinstance(m, nn.ReLU) for m in generator.layers) and all(type(n) is kind for n in own)
    _, critic = build(DCGAN, "projection", critic_norm="spectral")
    assert hasattr(critic.v, "parametrizations")


@NETWORKS
@CONDITIONINGS
def test_refusals(network, conditioning):
    generator, critic = build(network, conditioning)
    z, _, y = inputs()
    with pytest.raises(ValueError, match=r"labels must be one-hot \[6, 3\], floating point, got torch.int64 \[6\]"):
        generator(z, torch.arange(N))
    with pytest.raises(ValueError, match=r"samples must be \[N, 2, 8, 8\], got \[6, 3, 8, 8\]"):
        critic(torch.zeros(N, 3, 8, 8), y)
    with pytest.raises(ValueError, match=r"latents must be \[N, 5\]"):
        generator(z[:, :2], y)
    with pytest.raises(ValueError, match="conditioning must be one of projection, concat, got 'film'"):
        models.build("cgan", conditioning="film", classes=K, **network)
