"""The step with penalties, clipping and simultaneous updates, against the formulas written out in float64."""

from __future__ import annotations

import copy

import pytest
import torch

from gan_fast import data, losses, models, recipes
from gan_fast.training import AdversarialStep, Latents, Trainer
from gan_fast.training.distributed import World
from gan_fast.training.machine import Machine
from gan_fast.training.recipe import Penalties
from training.adversarial_steps import FixedLatents

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def grid():
    return data.load("grid25", limit=500)


def networks(kind, dtype=torch.float64):
    if kind == "points":
        pair = models.build("mlp", shape=[2], latent_dim=4, width=16, depth=2, seed=3)
        return *(network.to(dtype) for network in pair), (2,)
    config = {"resolution": 8, "channels": 1, "latent_dim": 4, "base_channels": 4, "extra_layers": 1}
    pair = models.build("dcgan", **config, critic_norm=kind, generator_norm="batch", seed=3)
    return *(network.to(dtype) for network in pair), (1, 8, 8)


def make_step(generator, critic, latents, *, lr=0.05, period=1, machine=None, loss=None, **settings):
    optimizers = tuple(torch.optim.SGD(network.parameters(), lr) for network in (generator, critic))
    machine = machine or Machine(CPU, "fp32", False)
    loss = loss or losses.RelativisticLoss()
    return AdversarialStep(
        generator,
        critic,
        loss,
        optimizers,
        latents,
        generator_period=period,
        machine=machine,
        world=World(),
        **settings,
    )


def squared_norm(logits, images):
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def gradients_by_hand(generator, critic, loss, real, z, r1, r2):
    """Of the critic's loss with respect to its weights, and of the generator's with respect to its own."""
    x, y = real.clone().requires_grad_(), generator(z)
    real_logits, fake_logits = critic(x), critic(y)
    d = loss.discriminator(real=real_logits, fake=fake_logits)
    d = d + r1 / 2 * squared_norm(real_logits, x) + r2 / 2 * squared_norm(fake_logits, y)
    of_critic = torch.autograd.grad(d, list(critic.parameters()), retain_graph=True, allow_unused=True)
    g = loss.generator(real=real_logits, fake=fake_logits)
    return of_critic, torch.autograd.grad(g, list(generator.parameters())), g.detach()


@pytest.mark.parametrize("kind", ["points", "none", "batch"])
@pytest.mark.parametrize("name", ["relativistic", "non_saturating", "relativistic_average"])
@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.3, 0.7)])
def test_simultaneous_updates_are_simultaneous_gradient_descent(kind, name, weights):
    """Three steps of theta <- theta - lr grad for both networks at once, equal to rounding."""
    generator, critic, shape = networks(kind)
    mine, theirs = copy.deepcopy(generator), copy.deepcopy(critic)
    loss = losses.get(name)()
    stream = torch.Generator().manual_seed(1)
    real = [torch.rand(6, *shape, generator=stream, dtype=torch.float64) * 2 - 1 for _ in range(3)]
    z = [torch.randn(6, 4, generator=stream, dtype=torch.float64) for _ in range(3)]
    step = make_step(
        generator,
        critic,
        FixedLatents(z),
        loss=loss,
        updates="simultaneous",
        penalties=Penalties(r1=weights[0], r2=weights[1]),
    )
    for i in range(3):
        stats = step(real[i], i + 1)
        of_critic, of_generator, value = gradients_by_hand(mine, theirs, loss, real[i], z[i], *weights)
        torch.testing.assert_close(stats.generator_loss.double(), value, rtol=1e-9, atol=0)
        with torch.no_grad():
            for network, gradients in ((theirs, of_critic), (mine, of_generator)):
                for p, g in zip(network.parameters(), gradients, strict=True):
                    if g is not None:
                        p -= 0.05 * g
    for ours, by_hand in ((generator, mine), (critic, theirs)):
        for (key, a), b in zip(ours.named_parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=key)


def test_alternating_is_something_else():
    """The generator sees the critic after its update, from new latents."""
    z = list(torch.randn(4, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    real = torch.rand(6, 2, dtype=torch.float64)
    ends = {}
    for updates in ("simultaneous", "alternating"):
        generator, critic, _ = networks("points")
        latents = FixedLatents(z)
        make_step(generator, critic, latents, updates=updates)(real, 1)
        ends[updates] = (len(latents.batches), generator.layers[0].weight, critic.layers[0].weight)
    assert (ends["simultaneous"][0], ends["alternating"][0]) == (3, 2)
    torch.testing.assert_close(ends["simultaneous"][2], ends["alternating"][2])
    assert not torch.allclose(ends["simultaneous"][1], ends["alternating"][1])


def test_critic_is_never_run_for_the_generator_alone():
    """Simultaneous: the critic scores the real and the fake batch once in each step, on this plan in two calls."""
    counts = {}
    for updates in ("simultaneous", "alternating"):
        generator, critic, _ = networks("points", torch.float32)
        seen = []
        critic.register_forward_hook(lambda module, args, out, seen=seen: seen.append(len(args[0])))
        step = make_step(generator, critic, Latents(4, 0, CPU, World()), updates=updates, loss=losses.HingeLoss())
        step(torch.rand(6, 2), 1)  # the first step may look for mixing
        seen.clear()
        step(torch.rand(6, 2), 2)
        counts[updates] = sum(seen)
    assert counts == {"simultaneous": 12, "alternating": 18}


def test_simultaneous_updates_need_equal_turns():
    generator, critic, _ = networks("points")
    with pytest.raises(ValueError, match="generator_period of 1, got 5"):
        make_step(generator, critic, FixedLatents([]), period=5, updates="simultaneous")
    with pytest.raises(ValueError, match=r"got 5 critic steps for each of the generator: use --critic-steps 1"):
        recipes.get("wgan_gp", updates="simultaneous")
    recipes.get("wgan_gp", updates="simultaneous", critic_steps=1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_in_autocast_both_networks_get_the_gradients_of_full_precision(precision):
    """Cosine to the float64 gradients: rounding to 8 bits leaves more than 0.99, a wrong sign or scale does not."""
    generator, critic, shape = networks("none")
    real = torch.rand(64, *shape, dtype=torch.float64) * 2 - 1
    z = torch.randn(64, 4, dtype=torch.float64)
    loss = losses.RelativisticLoss()
    expected = gradients_by_hand(generator, critic, loss, real, z, 1.0, 1.0)[:2]
    generator, critic = generator.float(), critic.float()
    machine = Machine(CPU, precision, True)
    settings = {"updates": "simultaneous", "penalties": Penalties(1.0, 1.0), "lr": 0.0}
    step = make_step(generator, critic, FixedLatents([z.float()]), machine=machine, loss=loss, **settings)
    step(real.float(), 1)
    for network, wanted in zip((critic, generator), expected, strict=True):
        mine = torch.cat([p.grad.flatten() for p, g in zip(network.parameters(), wanted, strict=True) if g is not None])
        true = torch.cat([g.flatten() for g in wanted if g is not None])
        cosine = torch.nn.functional.cosine_similarity(mine.double(), true, 0)
        assert cosine > (0.99 if precision == "bf16" else 1 - 1e-6), float(cosine)


def test_r1_and_r2_are_added_to_the_critics_gradient():
    generator, critic, shape = networks("none")
    real = torch.rand(6, *shape, dtype=torch.float64) * 2 - 1
    z = torch.randn(6, 4, dtype=torch.float64)
    wanted = gradients_by_hand(generator, critic, losses.HingeLoss(), real, z, 0.3, 0.7)[0]
    step = make_step(
        generator, critic, FixedLatents([z]), lr=0.0, loss=losses.HingeLoss(), penalties=Penalties(r1=0.3, r2=0.7)
    )
    step.train_critic(real)
    for p, g in zip(critic.parameters(), wanted, strict=True):
        if g is not None:
            torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-12)


def test_clipping_bounds_every_weight_of_the_critic(grid):
    trainer = Trainer(recipes.get("wgan", clip=0.02, device="cpu", threads=1, width=16), data=grid)
    assert max(p.abs().max() for p in trainer.critic.parameters()) > 0.5
    for _ in range(5):
        trainer.step(trainer.feed.next())
        assert max(p.abs().max() for p in trainer.critic.parameters()) <= 0.02
    assert max(p.abs().max() for p in trainer.generator.parameters()) > 0.5


def test_the_gradient_penalty_draws_the_critics_slope_to_one(grid):
    """Fitted to a fixed generator: mean slope on the lines between real and fake, 1.0 with the penalty."""
    slopes = {}
    for weight in (0.0, 10.0):
        settings = {"gp_weight": weight, "lr_d": 2e-3, "width": 32, "device": "cpu", "threads": 1}
        trainer = Trainer(recipes.get("wgan_gp", **settings), data=grid)
        for _ in range(200):
            trainer.adversarial_step.train_critic(trainer.feed.next())
        x = torch.lerp(grid.points[:256], trainer.sample(256), torch.rand(256, 1)).requires_grad_()
        (gradient,) = torch.autograd.grad(trainer.critic(x).sum(), x)
        slopes[weight] = float(gradient.norm(dim=1).mean())
    assert slopes[10.0] == pytest.approx(1, abs=0.25) and slopes[0.0] > 3, slopes
