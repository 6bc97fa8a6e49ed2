"""One step of the adversarial game, for any loss of `gan_fast.losses`:

    critic      minimise loss.discriminator(real=D(x), fake=D(G(z))) + penalties      z ~ N(0, I), G fixed
    generator   minimise loss.generator(fake=D(G(z)), real=D(x))          D fixed; every `generator_period`-th step

Class-conditional networks are G(z, y) and D(x, y); y of the generated samples are those of the real ones, so that both
have the same distribution.

Alternating updates do the second with new latents, after the first has changed D. Simultaneous ones take both gradients
at the same weights and the same z: d generator loss / d G(z) is a by-product of the critic's backward, so D scores no
image twice.

It reads nothing back from the device and has no shape that depends on data, so it can be captured as a CUDA graph.
Sources: of the alternation Goodfellow et al., "Generative Adversarial Nets", 2014, algorithm 1; of simultaneous
gradient descent Nowozin et al., "f-GAN", 2016, algorithm 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gan_fast.losses import AdversarialLoss, CriticStats
from gan_fast.penalties import clip_weights_, critic_backward, fast_double_backward, gradient_penalty
from gan_fast.training.distributed import World, average_gradients
from gan_fast.training.machine import Machine


class Penalties(NamedTuple):
    """What the critic's loss is helped by. r1/2 R1 + r2/2 R2 + interpolated E (|d logit / d x| - 1)^2 with x between
    real and fake images; after each step its weights are clipped to [-clip, clip] if clip is not 0."""

    r1: float = 0.0
    r2: float = 0.0
    interpolated: float = 0.0
    clip: float = 0.0


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


class Players(NamedTuple):
    """What a recipe makes its step from."""

    generator: nn.Module
    critic: nn.Module
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    latents: Latents
    machine: Machine
    world: World


class Step(Protocol):
    """What the trainer asks of a recipe's step.

    streams: random states by name, to be saved with a run.
    """

    streams: dict[str, torch.Generator]

    def __call__(self, real: Tensor, step: int, labels: Tensor | None = None) -> StepStats:
        """Step number `step`, from 1, on real samples and, for conditional networks, one-hot labels `[N, classes]`."""

    def state(self) -> dict[str, Tensor]:
        """Tensors to be saved with a run; what was saved is copied into them."""

    def figures(self) -> dict[str, Tensor]:
        """0-dim tensors to be logged beside the losses, as they are now."""


class AdversarialStep:
    """The two updates. Batch statistics and batch-coupled losses are those of one process's share of the batch.

    Attributes:
        streams: random states by name, to be saved with a run: "interpolation" where there is such a penalty.

    Raises ValueError for simultaneous updates with a `generator_period` other than 1.
    """

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
        updates: Literal["alternating", "simultaneous"] = "alternating",
        penalties: Penalties = Penalties(),  # noqa: B008 (a NamedTuple of numbers)
        seed: int = 0,
    ) -> None:
        if updates == "simultaneous" and generator_period != 1:
            raise ValueError(f"simultaneous updates need a generator_period of 1, got {generator_period}")
        self.generator = generator
        self.critic = critic
        self.loss = loss
        self.generator_optimizer, self.critic_optimizer = optimizers
        self.latents = latents
        self.generator_period = generator_period
        self.machine = machine
        self.world = world
        self.updates = updates
        self.penalties = penalties
        self.streams: dict[str, torch.Generator] = {}
        if penalties.interpolated:
            # A stream of its own, so that a run draws the same latents with and without the penalty.
            self.streams["interpolation"] = torch.Generator(machine.device).manual_seed(seed + 1)
        # Batch normalisation must see real and fake images apart: in one batch, its statistics would tell
        # every image about the others' origin. Any other critic scores both in one pass, which is faster.
        self._scores_together = not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in critic.modules())
        self._generator_loss = torch.zeros((), device=machine.device)

    def __call__(self, real: Tensor, step: int, labels: Tensor | None = None) -> StepStats:
        """Step number `step`, from 1, on real samples, images `[N, C, H, W]` in [-1, 1] or points `[N, D]`.

        With one-hot labels `[N, classes]` both networks are called with `labels=`.
        """
        if self.updates == "simultaneous":
            return self.train_both(real, labels)
        critic_stats = self.train_critic(real, labels)
        if step % self.generator_period == 0:
            self._generator_loss = self.train_generator(real, labels)
        return StepStats(critic_stats, self._generator_loss)

    def state(self) -> dict[str, Tensor]:
        return {"generator_loss": self._generator_loss}

    def figures(self) -> dict[str, Tensor]:
        return {}

    def train_critic(self, real: Tensor, labels: Tensor | None = None) -> CriticStats:
        with self.machine.autocast(), torch.no_grad():
            fake = self.generator(self.latents.draw(len(real)), **_given(labels)).to(real.dtype)
        self.critic_optimizer.zero_grad(set_to_none=True)
        stats = self._critic_gradients(real, fake, labels)
        self._descend(self.critic, self.critic_optimizer)
        if self.penalties.clip:
            clip_weights_(self.critic, self.penalties.clip)
        return stats

    def train_generator(self, real: Tensor, labels: Tensor | None = None) -> Tensor:
        # The critic only passes the gradient on: its own weight gradients would be computed for nothing.
        self.critic.requires_grad_(False)
        with self.machine.autocast():
            fake = self.generator(self.latents.draw(len(real)), **_given(labels))
            if self.loss.generator_needs_real:
                real_logits, fake_logits = self._logits(real, fake, labels)
            else:
                real_logits, fake_logits = None, self.critic(fake, **_given(labels))
        loss: Tensor = self.loss.generator(fake=fake_logits, real=real_logits)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._descend(self.generator, self.generator_optimizer)
        self.critic.requires_grad_(True)
        return loss.detach()

    def train_both(self, real: Tensor, labels: Tensor | None = None) -> StepStats:
        """Both gradients at the same weights, then both updates."""
        with self.machine.autocast():
            fake = self.generator(self.latents.draw(len(real)), **_given(labels)).to(real.dtype)
        for optimizer in (self.critic_optimizer, self.generator_optimizer):
            optimizer.zero_grad(set_to_none=True)
        stats = self._critic_gradients(real, fake.detach(), labels, generator_loss=self.loss)
        fake.backward(stats.fake_image_grad)
        self._descend(self.critic, self.critic_optimizer)
        self._descend(self.generator, self.generator_optimizer)
        if self.penalties.clip:
            clip_weights_(self.critic, self.penalties.clip)
        assert stats.generator_loss is not None
        return StepStats(stats, stats.generator_loss)

    def _critic_gradients(
        self,
        real: Tensor,
        fake: Tensor,
        labels: Tensor | None = None,
        generator_loss: AdversarialLoss | None = None,
    ) -> CriticStats:
        """The gradient of the critic's loss with its penalties, in `.grad`."""
        r1, r2, interpolated, _ = self.penalties
        if r1 or r2 or generator_loss is not None:
            with self.machine.autocast():
                stats = critic_backward(
                    self.critic,
                    real=real,
                    fake=fake,
                    loss=self.loss,
                    r1=r1,
                    r2=r2,
                    critic_kwargs=_given(labels),
                    generator_loss=generator_loss,
                )
        else:
            with self.machine.autocast():
                real_logits, fake_logits = self._logits(real, fake, labels)
            loss, stats = self.loss.discriminator(real=real_logits, fake=fake_logits, with_stats=True)
            loss.backward()
        if interpolated:
            with self.machine.autocast(), fast_double_backward():
                penalty = self._interpolated_penalty(real, fake, labels, interpolated)
                penalty.backward()
        return stats

    def _interpolated_penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None, weight: float) -> Tensor:
        stream, count, world = self.streams["interpolation"], len(real), self.world
        # As with latents, every rank moves the stream by the whole batch and uses its own part.
        torch.rand(count * world.rank, generator=stream, device=real.device)
        penalty = gradient_penalty(
            self.critic, real, fake, weight=weight, critic_kwargs=_given(labels), generator=stream
        )
        torch.rand(count * (world.size - 1 - world.rank), generator=stream, device=real.device)
        return penalty

    def _logits(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self._scores_together:
            return self.critic(real, **_given(labels)), self.critic(fake, **_given(labels))
        both = torch.cat([real, fake.to(real.dtype)])
        twice = None if labels is None else torch.cat([labels, labels])
        real_logits, fake_logits = self.critic(both, **_given(twice)).chunk(2)
        return real_logits, fake_logits

    def _descend(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        average_gradients(network.parameters(), self.world)
        optimizer.step()


def _given(labels: Tensor | None) -> dict[str, Tensor]:
    """What conditional networks are called with beside latents or samples; nothing of others."""
    return {} if labels is None else {"labels": labels}
