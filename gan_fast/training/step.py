"""One step of the adversarial game, for any loss of `gan_fast.losses`:

    critic      minimise loss.discriminator(real=D(x), fake=D(G(z)))      z ~ N(0, I), G fixed
    generator   minimise loss.generator(fake=D(G(z)), real=D(x))          D fixed; every `generator_period`-th step

It reads nothing back from the device and has no shape that depends on data, so it can be captured as a CUDA graph.
Source of the alternation: Goodfellow et al., "Generative Adversarial Nets", 2014, algorithm 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan_fast.losses import AdversarialLoss, CriticStats
from gan_fast.training.distributed import World, average_gradients
from gan_fast.training.machine import Machine


class StepStats(NamedTuple):
    """Detached 0-dim tensors on the device: reading one waits for the step to end."""

    critic: CriticStats
    generator_loss: Tensor


class Latents:
    """z ~ N(0, I), from one stream that does not depend on how many processes share it.

    Every rank draws the latents of the whole batch and keeps its own rows: a few thousand numbers cost less than
    a stream of its own for each rank would cost in clarity.
    """

    def __init__(self, size: int, seed: int, device: torch.device, world: World) -> None:
        self.size = size
        self.device = device
        self.world = world
        self.stream = torch.Generator(device).manual_seed(seed)

    def draw(self, count: int) -> Tensor:
        """`[count, size]`, this rank's rows of `count * world` latents."""
        everyone = torch.randn(count * self.world.size, self.size, generator=self.stream, device=self.device)
        return everyone[self.world.rank * count :][:count]


class AdversarialStep:
    """The two updates. Batch statistics and batch-coupled losses are those of one process's share of the batch."""

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        loss: AdversarialLoss,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        latents: Latents,
        *,
        generator_period: int,
        machine: Machine,
        world: World,
    ) -> None:
        self.generator = generator
        self.critic = critic
        self.loss = loss
        self.generator_optimizer, self.critic_optimizer = optimizers
        self.latents = latents
        self.generator_period = generator_period
        self.machine = machine
        self.world = world
        # Batch normalisation must see real and fake images apart: in one batch, its statistics would tell
        # every image about the others' origin. Any other critic scores both in one pass, which is faster.
        self._scores_together = not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in critic.modules())
        self._generator_loss = torch.zeros((), device=machine.device)

    def __call__(self, real: Tensor, step: int) -> StepStats:
        """Step number `step`, from 1, on real images `[N, C, H, W]` in [-1, 1]."""
        critic_stats = self.train_critic(real)
        if step % self.generator_period == 0:
            self._generator_loss = self.train_generator(real)
        return StepStats(critic_stats, self._generator_loss)

    def train_critic(self, real: Tensor) -> CriticStats:
        with self.machine.autocast():
            with torch.no_grad():
                fake = self.generator(self.latents.draw(len(real)))
            real_logits, fake_logits = self._logits(real, fake)
        loss, stats = self.loss.discriminator(real=real_logits, fake=fake_logits, with_stats=True)
        self._update(self.critic, self.critic_optimizer, loss)
        return stats

    def train_generator(self, real: Tensor) -> Tensor:
        # The critic only passes the gradient on: its own weight gradients would be computed for nothing.
        self.critic.requires_grad_(False)
        with self.machine.autocast():
            fake = self.generator(self.latents.draw(len(real)))
            if self.loss.generator_needs_real:
                real_logits, fake_logits = self._logits(real, fake)
            else:
                real_logits, fake_logits = None, self.critic(fake)
        loss: Tensor = self.loss.generator(fake=fake_logits, real=real_logits)
        self._update(self.generator, self.generator_optimizer, loss)
        self.critic.requires_grad_(True)
        return loss.detach()

    def _logits(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        if not self._scores_together:
            return self.critic(real), self.critic(fake)
        both = torch.cat([real, fake.to(real.dtype)])
        real_logits, fake_logits = self.critic(both).chunk(2)
        return real_logits, fake_logits

    def _update(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(network.parameters(), self.world)
        optimizer.step()
