"""WGAN: a critic that estimates the earth mover's distance, kept Lipschitz by clipping its weights.

    D minimises  -E D(x) + E D(G(z)),  then  w <- clip(w, -c, c)        five times, then
    G minimises  -E D(G(z))

Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, algorithm 1, with its c = 0.01, learning rate 5e-5,
batch of 64, five critic steps and RMSprop (section 4.3: momentum made training unstable). Every parameter of the critic
is clipped, biases and the gains of batch normalisation among them.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import nn

from gan_fast import losses
from gan_fast.recipes.networks import NetworkRecipe, rmsprop
from gan_fast.recipes.techniques import TechniqueRecipe
from gan_fast.training.recipe import Budget, Penalties


@dataclasses.dataclass(frozen=True, kw_only=True)
class WGAN(TechniqueRecipe, NetworkRecipe):
    """WGAN (Arjovsky et al. 2017): weight clipping, RMSprop, five critic steps."""

    name: ClassVar[str] = "wgan"
    default_budget: ClassVar[Budget] = Budget(images=2_000_000, seconds=210)

    batch: int = 64
    """Samples per step, over all processes."""

    critic_steps: int = 5
    """Critic steps for each generator step."""

    clip: float = 0.01
    """Bound of the critic's weights."""

    # The networks of the paper's experiments are DCGAN's, batch normalisation included.
    critic_norm: Literal["batch", "none", "spectral"] = "batch"
    """How the convolutional critic is normalised: batch as in the paper, none, or spectral."""

    lr_g: float = 5e-5
    """RMSprop's learning rate for the generator."""

    lr_d: float = 5e-5
    """RMSprop's learning rate for the critic."""

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "clip", "lr_g", "lr_d")

    def loss_function(self) -> losses.AdversarialLoss:
        return losses.WassersteinLoss()

    def penalties(self) -> Penalties:
        return Penalties(clip=self.clip)

    def optimizers(
        self, generator: nn.Module, critic: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        return rmsprop(generator, self.lr_g), rmsprop(critic, self.lr_d)
