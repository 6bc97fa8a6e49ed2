"""GAN: the original game of two multilayer perceptrons, over the value of D's probability that a sample is real,

    min_G max_D  V(D, G) = E log D(x) + E log(1 - D(G(z))),      D = sigmoid(l),  z ~ N(0, I)

    D minimises  -E log D(x) - E log(1 - D(G(z)))                             `critic_steps` times (k in the paper)
    G minimises  E log(1 - D(G(z))) (minimax: saturating)  or  -E log D(G(z)) (non_saturating), then

The critic here returns the logit l and not D, because -log sigmoid(l) = softplus(-l) and -log(1 - sigmoid(l)) =
softplus(l): the losses of `gan_fast.losses` are the same numbers with the same gradients, and stay finite where a
sigmoid in floating point has become 0 or 1. A test holds them against the sigmoid followed by `losses.BCELoss`.

Source: Goodfellow et al., "Generative Adversarial Nets", 2014, equation 1, algorithm 1 and section 3 (where the
non-saturating loss is recommended: early in training D rejects everything and log(1 - D) has no slope). The paper's
critic has maxout units and dropout and its optimiser is SGD with momentum; leaky ReLU and Adam stand in for them here.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from gan_fast import losses
from gan_fast.recipes.networks import AdamRecipe
from gan_fast.training.recipe import Budget


@dataclasses.dataclass(frozen=True, kw_only=True)
class GAN(AdamRecipe):
    """The original GAN (Goodfellow et al. 2014): the minimax game of two multilayer perceptrons."""

    name: ClassVar[str] = "gan"
    default_budget: ClassVar[Budget] = Budget(images=2_000_000, seconds=210)

    batch: int = 128
    """Samples per step, over all processes."""

    loss: Literal["non_saturating", "minimax"] = "non_saturating"
    """The generator's: -log D(G(z)), or the log(1 - D(G(z))) of the minimax game, which saturates."""

    critic_steps: int = 1
    """Critic steps for each generator step, k in the paper."""

    latent_dim: int | None = None
    """Length of a latent vector. Default: 64 for images, for points as many as they have coordinates."""

    width: int = 256
    """Units of each hidden layer."""

    depth: int = 3
    """Hidden layers."""

    # On digits, after 45 kimg, the proxy distance is at 22 with these, at 42 with a beta1 of 0.5.
    lr_g: float = 5e-4
    """Adam's learning rate for the generator."""

    lr_d: float = 5e-4
    """Adam's learning rate for the critic."""

    beta1: float = 0.0
    """Adam's decay of the mean gradient."""

    beta2: float = 0.99
    """Adam's decay of the squared gradient."""

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "critic_steps", "latent_dim", "width", "depth")

    def latent_size(self, shape: tuple[int, ...]) -> int:
        return self.latent_dim or (shape[0] if len(shape) == 1 else 64)

    def generator_period(self) -> int:
        return self.critic_steps

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        own = {"latent_dim": self.latent_size(shape), "width": self.width, "depth": self.depth}
        return "mlp", {"shape": list(shape), **own}

    def loss_function(self) -> losses.AdversarialLoss:
        return losses.get(self.loss)()
