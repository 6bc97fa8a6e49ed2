"""pix2pix: translation learned from pairs of pictures.

    G minimises  -E log D(x, G(x, z)) + lambda E |y - G(x, z)|
    D minimises  1/2 (-E log D(x, y) - E log(1 - D(x, G(x, z))))

x the input, y the output that belongs to it; D sees both, joined along their channels, and scores patches. z is dropout
inside G. The networks are in `gan_fast/models/pix2pix.py`. Source: Isola et al., "Image-to-Image Translation with
Conditional Adversarial Networks", 2017, section 3, with its lambda = 100, batch of 1, and Adam at 2e-4, beta1 = 0.5,
for half of the run and then linearly to 0 (its published settings). There is no dropout in `translate`: a
picture has one translation.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.augment.draws import Draws
from gan_fast.losses import CriticStats, NonSaturatingLoss
from gan_fast.models.pix2pix import default_depth
from gan_fast.recipes.translation import TranslationRecipe, network_settings
from gan_fast.training.distributed import average_gradients
from gan_fast.training.recipe import Recipe
from gan_fast.training.step import Players, Step, StepStats
from gan_fast.training.translation import Direction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pix2Pix(TranslationRecipe):
    """pix2pix (Isola et al. 2017): pairs of pictures, translated one way."""

    name: ClassVar[str] = "pix2pix"
    aligned: ClassVar[bool] = True

    direction: Direction = "AtoB"
    """Which of the two is the input."""

    depth: int | None = None
    """Halvings of the U-Net. Default: as many as both sides allow, at most the paper's 8."""

    l1: float = 100.0
    """Lambda, the weight of the mean absolute difference."""

    dropout: bool = True
    """Drop half of the values in the first three decoder layers while training."""

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "depth")

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "l1")

    def for_data(self, shape: tuple[int, ...], processes: int = 1) -> Recipe:
        recipe = super().for_data(shape, processes)
        assert isinstance(recipe, Pix2Pix)
        most = default_depth(*shape[1:])
        depth = self.depth or most
        if not 2 <= depth <= most:
            raise ValueError(
                f"a U-Net halves at least 2 times, and {depth} times only sides that are multiples of {1 << depth}; "
                f"got {shape[1]}x{shape[2]}: choose --height and --width, or another --depth"
            )
        return dataclasses.replace(recipe, depth=depth)

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        return "pix2pix", {**network_settings(self), "depth": self.depth}

    def directions(self) -> tuple[Direction, ...]:
        return (self.direction,)

    def step(self, players: Players) -> Step:
        return Pix2PixStep(players, reverse=self.direction == "BtoA", l1=self.l1, dropout=self.dropout, seed=self.seed)


class Pix2PixStep:
    """The critic, then the generator through the updated critic, on one and the same G(x, z)."""

    def __init__(self, players: Players, *, reverse: bool, l1: float, dropout: bool, seed: int) -> None:
        self.generator, self.critic = players.generator, players.critic
        self.generator_optimizer, self.critic_optimizer = players.optimizers
        self.machine, self.world = players.machine, players.world
        self.reverse, self.l1, self.dropout = reverse, l1, dropout
        self.loss = NonSaturatingLoss()
        self.streams = {"dropout": torch.Generator(self.machine.device).manual_seed(seed + 1)}
        self._l1 = torch.zeros((), device=self.machine.device)

    def __call__(self, real: Tensor, step: int, labels: Tensor | None = None) -> StepStats:
        """Step number `step`, from 1, on pairs `[N, 2 C, H, W]` in [-1, 1], A first."""
        parts = (x.contiguous(memory_format=self.machine.memory_format) for x in real.chunk(2, 1))
        x, y = reversed(list(parts)) if self.reverse else parts
        draws = None
        if self.dropout:
            draws = Draws(len(x), x.device, self.streams["dropout"], (self.world.rank, self.world.size))
        with self.machine.autocast():
            made = self.generator(x, draws).float()
        stats = self.train_critic(x, y, made.detach())
        return StepStats(stats, self.train_generator(x, y, made))

    def train_critic(self, x: Tensor, y: Tensor, made: Tensor) -> CriticStats:
        with self.machine.autocast():
            real, fake = self.critic(torch.cat([torch.cat([x, y], 1), torch.cat([x, made], 1)])).chunk(2)
        loss, stats = self.loss.discriminator(real=real, fake=fake, with_stats=True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        (loss / 2).backward()
        average_gradients(self.critic.parameters(), self.world)
        self.critic_optimizer.step()
        checked: CriticStats = stats
        return checked

    def train_generator(self, x: Tensor, y: Tensor, made: Tensor) -> Tensor:
        self.critic.requires_grad_(False)
        with self.machine.autocast():
            logits = self.critic(torch.cat([x, made], 1))
        distance = F.l1_loss(made, y)
        loss: Tensor = self.loss.generator(fake=logits) + self.l1 * distance
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.generator.parameters(), self.world)
        self.generator_optimizer.step()
        self.critic.requires_grad_(True)
        self._l1.copy_(distance.detach())
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        return {}

    def figures(self) -> dict[str, Tensor]:
        return {"l1": self._l1}
