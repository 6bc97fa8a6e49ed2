"""One step of the adversarial game, for any loss of `gan_fast.losses`:

    critic      minimise loss.discriminator(real=D(x), fake=D(G(z))) + penalties      z ~ N(0, I), G fixed
    generator   minimise loss.generator(fake=D(G(z)), real=D(x))          D fixed; every `generator_period`-th step

Class-conditional networks are G(z, y) and D(x, y); y of the generated samples are those of the real ones, so that both
have the same distribution.

Alternating updates do the second with new latents, after the first has changed D. Simultaneous ones take both gradients
at the same weights and the same z: d generator loss / d G(z) is a by-product of the critic's backward, so D scores no
image twice.

What else helps either player is in `gan_fast.training.techniques`: what the critic is shown, and what is added to the
losses.

It reads nothing back from the device and has no shape that depends on data, so it can be captured as a CUDA graph.
Sources: of the alternation Goodfellow et al., "Generative Adversarial Nets", 2014, algorithm 1; of simultaneous
gradient descent Nowozin et al., "f-GAN", 2016, algorithm 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gan_fast.losses import AdversarialLoss, CriticStats
from gan_fast.penalties import (
    MinibatchDiscrimination,
    MinibatchStdDev,
    clip_weights_,
    critic_backward,
    fast_double_backward,
    gradient_penalty,
    r1_penalty,
    r2_penalty,
)
from gan_fast.penalties.critic_step import Plan
from gan_fast.training.distributed import World, average_gradients
from gan_fast.training.machine import Machine
from gan_fast.training.techniques import Applied, Features, Techniques, wide
from gan_fast.training.unroll import Score, unrolled

# Layers of a critic in which samples of a batch meet.
_MIXING = (nn.modules.batchnorm._BatchNorm, MinibatchStdDev, MinibatchDiscrimination)


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
        streams: random states by name, to be saved with a run: "interpolation" where there is such a penalty, and
            those of the techniques.
        techniques: what is in use of `gan_fast.training.techniques`.
        plan: how `critic_backward` computes R1 and R2.

    Raises ValueError for simultaneous updates with a `generator_period` other than 1 or with a technique that needs the
    generator's own pass, and for unrolled steps with what they do not follow.
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
        techniques: Techniques = Techniques(),  # noqa: B008 (another)
        seed: int = 0,
    ) -> None:
        if updates == "simultaneous" and generator_period != 1:
            raise ValueError(f"simultaneous updates need a generator_period of 1, got {generator_period}")
        techniques.check(updates, penalties.interpolated > 0, loss)
        self.generator = generator
        self.critic = critic
        self.techniques = Applied(techniques, loss, machine, world, seed)
        self.loss = self.techniques.lecam or loss
        self.generator_optimizer, self.critic_optimizer = optimizers
        self.latents = latents
        self.generator_period = generator_period
        self.machine = machine
        self.world = world
        self.updates = updates
        self.penalties = penalties
        self.plan: Plan = "auto"
        self.streams: dict[str, torch.Generator] = dict(self.techniques.streams)
        if penalties.interpolated:
            # A stream of its own, so that a run draws the same latents with and without the penalty.
            self.streams["interpolation"] = torch.Generator(machine.device).manual_seed(seed + 1)
        # Layers that mix samples must see real and fake images apart: in one batch, statistics would tell
        # every image about the others' origin. Any other critic scores both in one pass, which is faster.
        self._scores_together = not any(isinstance(m, _MIXING) for m in critic.modules())
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
        saved = {"generator_loss": self._generator_loss}
        if self.techniques.lecam is not None:
            saved["lecam_moments"] = self.techniques.lecam.moments
        return saved

    def figures(self) -> dict[str, Tensor]:
        return {}

    def train_critic(self, real: Tensor, labels: Tensor | None = None) -> CriticStats:
        with self.machine.autocast(), torch.no_grad():
            latents = self.latents.draw(len(real))
            fake = self.generator(latents, **_given(labels)).to(real.dtype)
        self.critic_optimizer.zero_grad(set_to_none=True)
        stats = self._critic_gradients(self._shown(real), self._shown(fake), labels)
        self._consistency_gradients(real, fake, latents, labels)
        self._update_critic(stats)
        return stats

    def train_generator(self, real: Tensor, labels: Tensor | None = None) -> Tensor:
        # The critic only passes the gradient on: its own weight gradients would be computed for nothing.
        self.critic.requires_grad_(False)
        settings = self.techniques.settings
        compares = self.loss.generator_needs_real or settings.feature_matching > 0
        with self.machine.autocast():
            latents = self.latents.draw(len(real))
            fake = self.generator(latents, **_given(labels))
        shown = self._shown(fake)
        shown_real = self._shown(real) if compares or settings.unrolled_steps else real
        score = self._opponent(shown_real, shown, labels)
        with self.machine.autocast(), Features(self.critic, settings.feature_matching > 0) as features:
            if compares:
                real_logits, fake_logits = self._logits(shown_real, shown, labels, score)
            else:
                real_logits, fake_logits = None, score(shown, **self._critic_arguments(len(shown), labels))
        loss = self.techniques.generator_loss(self.loss, real_logits, fake_logits, features)
        if settings.zcr_generator:
            with self.machine.autocast():
                moved = self.generator(self.techniques.perturbed(latents), **_given(labels))
            loss = loss - settings.zcr_generator * (wide(fake) - wide(moved)).square().flatten(1).sum(1).mean()
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._descend(self.generator, self.generator_optimizer)
        self.critic.requires_grad_(True)
        return loss.detach()

    def train_both(self, real: Tensor, labels: Tensor | None = None) -> StepStats:
        """Both gradients at the same weights, then both updates."""
        with self.machine.autocast():
            latents = self.latents.draw(len(real))
            fake = self.generator(latents, **_given(labels)).to(real.dtype)
        for optimizer in (self.critic_optimizer, self.generator_optimizer):
            optimizer.zero_grad(set_to_none=True)
        shown = self._shown(fake)
        stats = self._critic_gradients(self._shown(real), shown.detach(), labels, generator_loss=self.loss)
        shown.backward(stats.fake_image_grad)
        self._consistency_gradients(real, fake.detach(), latents, labels)
        self._update_critic(stats)
        self._descend(self.generator, self.generator_optimizer)
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
                    critic_kwargs=self._critic_arguments(len(real), labels),
                    generator_loss=generator_loss,
                    plan=self.plan,
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

    def _consistency_gradients(self, real: Tensor, fake: Tensor, latents: Tensor, labels: Tensor | None) -> None:
        """Add bCR's and zCR's to `.grad` of the critic, from passes of their own."""
        applied, settings = self.techniques, self.techniques.settings
        if not (settings.bcr or settings.zcr_critic):
            return
        views = [fake]
        pairs = []
        if settings.bcr:
            views += [applied.augmented(fake), real, applied.augmented(real)]
            pairs += [(settings.bcr, 0, 1), (settings.bcr, 2, 3)]
        with self.machine.autocast():
            if settings.zcr_critic:
                with torch.no_grad():
                    near = self.generator(applied.perturbed(latents), **_given(labels))
                views.append(near.to(real.dtype))
                pairs.append((settings.zcr_critic, 0, len(views) - 1))
            logits = self._logits_of([self._shown(view) for view in views], labels, self.critic)
        terms = [weight * (wide(logits[a]) - wide(logits[b])).square().mean() for weight, a, b in pairs]
        torch.stack(terms).sum().backward()

    def _update_critic(self, stats: CriticStats) -> None:
        self._descend(self.critic, self.critic_optimizer)
        if self.penalties.clip:
            clip_weights_(self.critic, self.penalties.clip)
        if self.techniques.lecam is not None:
            self.techniques.lecam.update(stats, self.world)

    def _opponent(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Score:
        """The critic that the generator plays against: the present one, or the one it will be."""
        steps = self.techniques.settings.unrolled_steps
        if not steps:
            return self.critic

        def loss(score: Score) -> Tensor:
            r1, r2, _, _ = self.penalties
            # Images of this step alone: the weights of later steps depend on those of earlier ones, and a penalty's
            # gradient must not go that way.
            images, made = real.detach().requires_grad_(r1 > 0), fake.view_as(fake)
            with self.machine.autocast():
                real_logits, fake_logits = self._logits(images, made, labels, score)
            value: Tensor = self.loss.discriminator(real=real_logits, fake=fake_logits)
            if r1:
                value = value + r1_penalty(real_logits, images, r1)
            return value + r2_penalty(fake_logits, made, r2) if r2 else value

        return unrolled(self.critic, self.critic_optimizer, steps, loss, self.world, self.penalties.clip)

    def _interpolated_penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None, weight: float) -> Tensor:
        stream, count, world = self.streams["interpolation"], len(real), self.world
        arguments = self._critic_arguments(count, labels)
        # As with latents, every rank moves the stream by the whole batch and uses its own part.
        torch.rand(count * world.rank, generator=stream, device=real.device)
        penalty = gradient_penalty(self.critic, real, fake, weight=weight, critic_kwargs=arguments, generator=stream)
        torch.rand(count * (world.size - 1 - world.rank), generator=stream, device=real.device)
        return penalty

    def _logits(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, score: Score | None = None
    ) -> tuple[Tensor, Tensor]:
        real_logits, fake_logits = self._logits_of([real, fake], labels, score or self.critic)
        return real_logits, fake_logits

    def _logits_of(self, views: list[Tensor], labels: Tensor | None, score: Score) -> list[Tensor]:
        given = [self._critic_arguments(len(view), labels) for view in views]
        if not self._scores_together:
            return [score(view, **arguments) for view, arguments in zip(views, given, strict=True)]
        together = torch.cat([view.to(views[0].dtype) for view in views])
        everyone = {name: torch.cat([arguments[name] for arguments in given]) for name in given[0]}
        return list(score(together, **everyone).chunk(len(views)))

    def _shown(self, samples: Tensor) -> Tensor:
        """What the critic is given in place of samples."""
        return self.techniques.show(samples)

    def _critic_arguments(self, count: int, labels: Tensor | None) -> dict[str, Tensor]:
        """What the critic is called with beside `count` samples: a row for each."""
        return _given(labels)

    def _descend(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        average_gradients(network.parameters(), self.world)
        optimizer.step()


def _given(labels: Tensor | None) -> dict[str, Tensor]:
    """What conditional networks are called with beside latents or samples; nothing for others."""
    return {} if labels is None else {"labels": labels}
