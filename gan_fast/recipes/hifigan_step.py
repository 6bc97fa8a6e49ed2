"""One training step of HiFi-GAN: the critics on a real clip and its reconstruction, then the generator. See
`gan_fast.recipes.hifigan` for the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast.losses import CriticStats, LeastSquaresLoss, feature_matching
from gan_fast.models.hifigan import Critic, Generator
from gan_fast.training.distributed import average_gradients
from gan_fast.training.step import Players, StepStats


class HiFiGANStep:
    """The two updates. Calls are those of the trainer (`gan_fast.training.step.Step`).

    It draws nothing and no sample sees another, so several processes do what one does.
    """

    def __init__(self, players: Players, *, feature_weight: float, mel_weight: float) -> None:
        assert isinstance(players.generator, Generator) and isinstance(players.critic, Critic)
        self.generator, self.critic = players.generator, players.critic
        self.generator_optimizer, self.critic_optimizer = players.optimizers
        self.machine, self.world = players.machine, players.world
        self.feature_weight, self.mel_weight = feature_weight, mel_weight
        self.loss = LeastSquaresLoss()
        self.streams: dict[str, torch.Generator] = {}
        self._figures = {name: torch.zeros((), device=self.machine.device) for name in ("mel_l1", "feature_matching")}

    def __call__(self, real: Tensor, step: int, labels: Tensor | None = None) -> StepStats:
        """Step number `step`, from 1, on real clips `[N, 1, T]` in [-1, 1]."""
        spectrogram = self.generator.mel(real)
        with self.machine.autocast():
            fake = self.generator(spectrogram).float()
        stats = self.train_critic(real, fake.detach())
        return StepStats(stats, self.train_generator(real, fake, spectrogram))

    def train_critic(self, real: Tensor, fake: Tensor) -> CriticStats:
        with self.machine.autocast():
            logits, _ = self.critic(torch.cat([real, fake]))
        pairs = [own.chunk(2) for own in logits]
        # The paper's squares come without the loss's factor 1/2.
        loss, stats = self.loss.discriminator(
            real=[r.contiguous() for r, _ in pairs], fake=[f.contiguous() for _, f in pairs], with_stats=True
        )
        self.critic_optimizer.zero_grad(set_to_none=True)
        (2 * loss).backward()
        average_gradients(self.critic.parameters(), self.world)
        self.critic_optimizer.step()
        return stats

    def train_generator(self, real: Tensor, fake: Tensor, spectrogram: Tensor) -> Tensor:
        # The critic only passes the gradient on: its own weight gradients would be computed for nothing.
        self.critic.requires_grad_(False)
        with self.machine.autocast():
            with torch.no_grad():
                _, real_features = self.critic(real)
            fake_logits, fake_features = self.critic(fake)
        features = feature_matching(real_features, fake_features)
        mel = (spectrogram - self.generator.mel(fake)).abs().mean()
        adversarial = 2 * self.loss.generator(fake=fake_logits)
        loss: Tensor = adversarial + self.feature_weight * features + self.mel_weight * mel
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.generator.parameters(), self.world)
        self.generator_optimizer.step()
        self.critic.requires_grad_(True)
        self._figures["mel_l1"].copy_(mel.detach())
        self._figures["feature_matching"].copy_(features.detach())
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        return {}

    def figures(self) -> dict[str, Tensor]:
        return self._figures
