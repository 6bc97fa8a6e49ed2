"""A whole step of recipe r3gan on stacked digits: critic with R1 and R2, generator, Adam, at the recipe's own sizes.

    gan_fast    the recipe as it is: `critic_backward`'s shared plan, the ops of gan_fast
    eager       the same recipe with `plan="autograd"` under `reference_mode()`: what the paper writes, in plain PyTorch

Both run the recipe's own `AdversarialStep` from the same weights on the same samples; the first step is held against
the second contender in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor

from gan_fast import models, reference_mode
from gan_fast.bench.cases import Case, Contender, Prepared, Role

SHAPE = (3, 8, 8)
TARGETS = {"alternating": 1.5, "simultaneous": 1.8}
Updates = Literal["alternating", "simultaneous"]


def step(updates: Updates, device: torch.device, dtype: torch.dtype, eager: bool) -> Callable[[], Sequence[Tensor]]:
    """One step; the job returns both losses, logits' means and a gradient of each network."""
    from gan_fast import recipes
    from gan_fast.training.distributed import World
    from gan_fast.training.machine import Machine
    from gan_fast.training.step import AdversarialStep, Latents, Players

    recipe = recipes.get("r3gan", data="stacked-digits", updates=updates)
    name, config = recipe.networks(SHAPE)
    generator, critic = models.build(name, seed=0, **config)
    for network in (generator, critic):
        # Fixup's last layers start at 0, where nothing before them has a gradient.
        stream = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if key.endswith("project.weight"):
                    parameter.copy_(torch.randn(parameter.shape, generator=stream) / parameter[0].numel() ** 0.5 / 2)
        network.to(device, dtype).to(memory_format=torch.channels_last).train()
    numbers = torch.Generator().manual_seed(1)
    real = (torch.rand(recipe.batch, *SHAPE, generator=numbers) * 2 - 1).to(device, dtype)
    given = torch.randn(recipe.batch, recipe.latent_size(SHAPE), generator=numbers).to(device, dtype)

    class Given(Latents):
        def draw(self, count: int) -> Tensor:
            return given[:count]

    players = Players(
        generator,
        critic,
        recipe.optimizers(generator, critic),
        Given(given.shape[1], 0, device, World()),
        Machine(device, "fp32", True),
        World(),
    )
    whole = recipe.step(players)
    assert isinstance(whole, AdversarialStep)
    whole.plan = "autograd" if eager else "auto"
    real = real.to(memory_format=torch.channels_last)
    first = (generator.get_parameter("linear.weight"), critic.get_parameter("from_image.weight"))

    def run() -> Sequence[Tensor]:
        with reference_mode() if eager else nullcontext():
            stats = whole(real, 1)
        gradients = [p.grad.clone() for p in first if p.grad is not None]
        return [stats.critic.real_mean, stats.critic.fake_mean, stats.generator_loss, *gradients]

    return run


def _case(updates: Updates) -> Case:
    def build(device: torch.device) -> Prepared:
        contenders = (
            Contender("gan_fast", "ours", step(updates, device, torch.float32, eager=False)),
            Contender("eager", "eager", step(updates, device, torch.float32, eager=True)),
        )
        truth = step(updates, device, torch.float64, eager=True)()
        return Prepared(contenders, tuple(t.clone() for t in truth))

    targets: dict[Role, float] = {"eager": TARGETS[updates]}
    return Case(
        name=f"r3gan_step/{updates}",
        group="R3GAN step",
        size=128,
        traffic=0,
        contenders=("gan_fast", "eager"),
        build=build,
        targets=targets,
        # Alternating, the generator's gradient is at a critic that Adam has moved by signs of gradients.
        rtol=2e-3,
    )


def cases() -> list[Case]:
    """Alternating and simultaneous updates."""
    return [_case("alternating"), _case("simultaneous")]
