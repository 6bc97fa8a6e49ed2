"""WGAN-GP: a critic whose gradient is drawn to norm 1 on the lines between real and generated images.

    D minimises  -E D(x) + E D(G(z)) + lambda E (|grad D(y)| - 1)^2,    y = x + t (G(z) - x),  t ~ U(0, 1)
    G minimises  -E D(G(z))                                             after every five critic steps

Source: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, algorithm 1, with its lambda = 10, five critic
steps, batch of 64 and Adam at 1e-4 with betas (0, 0.9). The penalty is each image's own, so the critic must not mix
images: no batch normalisation in it (section 4). The generator keeps its own.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from gan_fast import losses
from gan_fast.recipes.networks import AdamRecipe, NetworkRecipe
from gan_fast.recipes.techniques import TechniqueRecipe
from gan_fast.training.recipe import Budget, Penalties


@dataclasses.dataclass(frozen=True, kw_only=True)
class WGANGP(TechniqueRecipe, AdamRecipe, NetworkRecipe):
    """WGAN-GP (Gulrajani et al. 2017): gradient penalty, Adam without momentum, five critic steps."""

    name: ClassVar[str] = "wgan_gp"
    default_budget: ClassVar[Budget] = Budget(images=2_000_000, seconds=210)

    batch: int = 64
    """Samples per step, over all processes."""

    critic_steps: int = 5
    """Critic steps for each generator step."""

    gp_weight: float = 10.0
    """Lambda, the weight of the gradient penalty. Points in the plane want less, such as 0.1."""

    critic_norm: Literal["batch", "none", "spectral"] = "none"
    """How the convolutional critic is normalised: none as in the paper, or spectral; batch mixes images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.critic_norm == "batch":
            raise ValueError(
                "critic_norm is 'batch', and the gradient penalty is each image's own: use none (the paper) or spectral"
            )

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "gp_weight")

    def loss_function(self) -> losses.AdversarialLoss:
        return losses.WassersteinLoss()

    def penalties(self) -> Penalties:
        return Penalties(interpolated=self.gp_weight)
