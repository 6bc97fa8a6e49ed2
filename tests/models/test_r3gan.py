"""R3GAN's networks: the identity at first, Fixup's sizes, no mixing, gradients of the shared plan, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from gan_fast import losses, models, penalties
from gan_fast.models.r3gan import Block, widths_for

SMALL = {"resolution": 16, "channels": 3, "base_channels": 8, "max_channels": 16, "latent_dim": 5, "group_size": 8}


def test_blocks_begin_as_the_identity_and_learn():
    block = Block(8, 2, 4, 1.0)
    x = torch.randn(3, 8, 5, 7)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.project.weight.grad.abs().sum() > 0


def test_initial_weights_are_fixups():
    generator, critic = models.build("r3gan", seed=0, resolution=32, base_channels=64, max_channels=64, group_size=16)
    for network, blocks in ((generator, 8), (critic, 8)):
        first = next(m for m in network.stages if isinstance(m, Block))
        expected = math.sqrt(2 / 1.04) * blocks**-0.25
        for layer, inputs in ((first.expand, 64), (first.spatial, 16 * 9)):
            assert float(layer.weight.detach().std()) * math.sqrt(inputs) == pytest.approx(expected, rel=0.05)
            assert not layer.bias.any()
    # A network of identities keeps the scale of plain areas: logits are of order 1 before any training.
    logits = critic(torch.randn(64, 3, 1, 1).expand(-1, -1, 32, 32))
    assert 0.2 < logits.std() < 5


def test_shapes_and_widths():
    generator, critic = models.build("r3gan", seed=0, **SMALL)
    assert widths_for(16, 8, 16) == [16, 16, 8]
    images = generator(torch.randn(4, 5))
    assert images.shape == (4, 3, 16, 16) and critic(images).shape == (4,)
    assert critic(images[:0]).shape == (0,)


def test_the_critic_takes_the_shared_plan_and_its_gradients_are_autograds():
    _, critic = models.build("r3gan", seed=1, **SMALL)
    critic = critic.double()
    for block in critic.stages:  # past the start, where blocks are the identity
        if isinstance(block, Block):
            torch.nn.init.normal_(block.project.weight, 0.0, 0.2)
    real, fake = (torch.randn(6, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    found = {}
    for plan in ("auto", "autograd"):
        critic.zero_grad()
        stats = penalties.critic_backward(
            critic, real=real, fake=fake, loss=losses.RelativisticLoss(), r1=0.7, r2=0.3, plan=plan
        )
        found[plan] = [p.grad.clone() for p in critic.parameters()]
        assert stats.plan == ("shared" if plan == "auto" else "autograd")
    for mine, theirs in zip(found["auto"], found["autograd"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"resolution": 12}, "power of two"),
        ({"group_size": 7}, "groups of 7"),
        ({"blocks": 0}, "blocks must be a positive"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, named):
    with pytest.raises(ValueError, match=named):
        models.build("r3gan", **{**SMALL, **change})


def test_inputs_of_another_shape_are_refused():
    generator, critic = models.build("r3gan", **SMALL)
    with pytest.raises(ValueError, match=r"latents must be \[N, 5\]"):
        generator(torch.randn(2, 6))
    with pytest.raises(ValueError, match=r"images must be \[N, 3, 16, 16\]"):
        critic(torch.randn(2, 3, 8, 8))
