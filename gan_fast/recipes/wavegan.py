"""WaveGAN: raw waveforms by one-dimensional DCGAN networks, the WGAN-GP loss, and a critic that hears shifted phases.

    D minimises  -E D(x) + E D(G(z)) + lambda E (|grad D(y)| - 1)^2,    y = x + t (G(z) - x),  t ~ U(0, 1)
    G minimises  -E D(G(z))                                             after every five critic steps

where each call of D shuffles phases anew: see `gan_fast.models.wavegan`. Source: Donahue, McAuley and Puckette,
"Adversarial Audio Synthesis", ICLR 2019; with `--length 16384 --base-channels 64` it is the paper's (batch 64, Adam at
1e-4 with betas 0.5 and 0.9, lambda 10, shuffle 2). The defaults are a size that two cores can train.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from gan_fast import losses
from gan_fast.augment.draws import Draws
from gan_fast.models.wavegan import Critic
from gan_fast.penalties import gradient_penalty
from gan_fast.recipes.networks import AdamRecipe
from gan_fast.recipes.sound import SoundRecipe
from gan_fast.training.recipe import Budget, Penalties
from gan_fast.training.step import AdversarialStep, Players, Step
from gan_fast.training.unroll import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveGAN(SoundRecipe, AdamRecipe):
    """WaveGAN (Donahue et al. 2019): raw waveforms, WGAN-GP with phase shuffle."""

    name: ClassVar[str] = "wavegan"
    default_budget: ClassVar[Budget] = Budget(images=2_000_000, seconds=1800)

    batch: int = 64
    """Clips per step, over all processes."""

    latent_dim: int = 100
    """Length of a latent vector."""

    base_channels: int = 16
    """Channels at a quarter of the clip's length; each further quartering doubles them. The paper's 64."""

    shuffle: int = 2
    """Phase shuffle: the critic's activations are moved by up to this many samples; 0 for none."""

    critic_steps: int = 5
    """Critic steps for each generator step."""

    gp_weight: float = 10.0
    """Lambda, the weight of the gradient penalty."""

    beta1: float = 0.5
    """Adam's decay of the mean gradient."""

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "latent_dim", "base_channels", "critic_steps")

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "gp_weight", "shuffle")

    def latent_size(self, shape: tuple[int, ...]) -> int:
        return self.latent_dim

    def generator_period(self) -> int:
        return self.critic_steps

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        names = ("length", "rate", "latent_dim", "base_channels", "shuffle")
        return "wavegan", {name: getattr(self, name) for name in names}

    def loss_function(self) -> losses.AdversarialLoss:
        return losses.WassersteinLoss()

    def penalties(self) -> Penalties:
        return Penalties(interpolated=self.gp_weight)

    def step(self, players: Players) -> Step:
        return WaveGANStep(
            players.generator,
            players.critic,
            self.loss_function(),
            players.optimizers,
            players.latents,
            generator_period=self.critic_steps,
            penalties=self.penalties(),
            seed=self.seed,
            machine=players.machine,
            world=players.world,
        )


class WaveGANStep(AdversarialStep):
    """The two updates with a critic whose every call shuffles phases, by a stream of its own."""

    critic: Critic

    def __init__(self, *args: Any, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, seed=seed, **kwargs)
        self.streams["shuffle"] = torch.Generator(self.machine.device).manual_seed(seed + 2)

    def train_generator(self, real: Tensor, labels: Tensor | None = None) -> Tensor:
        # The critic only passes the gradient on: its own weight gradients would be computed for nothing.
        self.critic.requires_grad_(False)
        with self.machine.autocast():
            fake = self.generator(self.latents.draw(len(real)))
            logits = self.critic(fake, self._shifts(len(real)))
        loss: Tensor = self.loss.generator(fake=logits)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._descend(self.generator, self.generator_optimizer)
        self.critic.requires_grad_(True)
        return loss.detach()

    def _logits(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, score: Score | None = None
    ) -> tuple[Tensor, Tensor]:
        shifts = torch.cat([self._shifts(len(real)), self._shifts(len(fake))])
        real_logits, fake_logits = self.critic(torch.cat([real, fake.to(real.dtype)]), shifts).chunk(2)
        return real_logits, fake_logits

    def _interpolated_penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None, weight: float) -> Tensor:
        stream, count, world = self.streams["interpolation"], len(real), self.world
        arguments = {"shifts": self._shifts(count)}
        # As with latents, every rank moves the stream by the whole batch and uses its own part.
        torch.rand(count * world.rank, generator=stream, device=real.device)
        penalty = gradient_penalty(self.critic, real, fake, weight=weight, critic_kwargs=arguments, generator=stream)
        torch.rand(count * (world.size - 1 - world.rank), generator=stream, device=real.device)
        return penalty

    def _shifts(self, count: int) -> Tensor:
        """r, whole numbers `[count, shuffles]` uniform in -n..n, this rank's rows of the whole batch's."""
        reach, share = self.critic.shuffle, (self.world.rank, self.world.size)
        u = Draws(count, self.machine.device, self.streams["shuffle"], share).uniform(self.critic.shuffles)
        return (u * (2 * reach + 1)).long() - reach
