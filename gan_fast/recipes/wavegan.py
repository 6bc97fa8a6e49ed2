"""WaveGAN: raw waveforms by one-dimensional DCGAN networks, the WGAN-GP loss, and a critic that hears shifted phases.

    D minimises  -E D(x) + E D(G(z)) + lambda E (|grad D(y)| - 1)^2,    y = x + t (G(z) - x),  t ~ U(0, 1)
    G minimises  -E D(G(z))                                             after every five critic steps

where each call of D shuffles phases anew: see `gan_fast.models.wavegan`. Source: Donahue, McAuley and Puckette,
"Adversarial Audio Synthesis", ICLR 2019; with `--length 16384 --base-channels 64` it is the paper's (batch 64, Adam at
1e-4 with betas 0.5 and 0.9, lambda 10, shuffle 2). The defaults are a size that two cores can train.

With `--critic spectrogram`, which is not the paper's, D judges levels L(x) of mel bands instead, nothing is shuffled,
and penalties are those of gradients with respect to L.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gan_fast import losses
from gan_fast.augment.draws import Draws
from gan_fast.models.wavegan import Critic, SpectrogramCritic
from gan_fast.recipes.dcgan import LossName
from gan_fast.recipes.networks import AdamRecipe
from gan_fast.recipes.sound import SoundRecipe
from gan_fast.training.recipe import Budget, Penalties
from gan_fast.training.step import AdversarialStep, Players, Step


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

    critic: Literal["waveform", "spectrogram"] = "waveform"
    """What is judged: the waveform by convolutions, as in the paper, or its mel spectrogram by an MLP."""

    shuffle: int = 2
    """Phase shuffle: the waveform critic's activations are moved by up to this many samples; 0 for none."""

    mels: int = 40
    """Mel bands that the spectrogram critic hears."""

    width: int = 256
    """Units of each hidden layer of the spectrogram critic."""

    depth: int = 2
    """Hidden layers of the spectrogram critic."""

    critic_steps: int = 5
    """Critic steps for each generator step."""

    gp_weight: float = 10.0
    """Lambda, the weight of the gradient penalty."""

    loss: LossName = "wasserstein"
    """Adversarial loss; the paper's is wasserstein."""

    r1: float = 0.0
    """Weight of r1/2 E |d logit / d real|^2 in the critic's loss, real being what the critic judges."""

    # Huang et al. 2024 (R3GAN): with the relativistic loss, instead of the gradient penalty.
    r2: float = 0.0
    """Weight of r2/2 E |d logit / d fake|^2 in the critic's loss."""

    beta1: float = 0.5
    """Adam's decay of the mean gradient."""

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "latent_dim", "base_channels", "critic_steps", "mels", "width", "depth")

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "gp_weight", "shuffle", "r1", "r2")

    def latent_size(self, shape: tuple[int, ...]) -> int:
        return self.latent_dim

    def generator_period(self) -> int:
        return self.critic_steps

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        names = ["length", "rate", "latent_dim", "base_channels", "shuffle"]
        if self.critic != "waveform":
            names += ["critic", "mels", "width", "depth"]
        return "wavegan", {name: getattr(self, name) for name in names}

    def loss_function(self) -> losses.AdversarialLoss:
        return losses.get(self.loss)()

    def penalties(self) -> Penalties:
        return Penalties(r1=self.r1, r2=self.r2, interpolated=self.gp_weight)

    def step(self, players: Players) -> Step:
        kind = SpectrogramStep if self.critic == "spectrogram" else WaveGANStep
        return kind(
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

    def _critic_arguments(self, count: int, labels: Tensor | None) -> dict[str, Tensor]:
        return {"shifts": self._shifts(count)}

    def _shifts(self, count: int) -> Tensor:
        """r, whole numbers `[count, shuffles]` uniform in -n..n, this rank's rows of the whole batch's."""
        reach, share = self.critic.shuffle, (self.world.rank, self.world.size)
        u = Draws(count, self.machine.device, self.streams["shuffle"], share).uniform(self.critic.shuffles)
        return (u * (2 * reach + 1)).long() - reach


class SpectrogramStep(AdversarialStep):
    """The two updates with a critic that is given levels in place of waveforms."""

    critic: SpectrogramCritic

    def _shown(self, samples: Tensor) -> Tensor:
        return self.critic.levels(super()._shown(samples))
