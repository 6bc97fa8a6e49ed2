"""DCGAN: a convolutional generator and critic trained with the non-saturating loss and Adam.

    D minimises  softplus(-D(x)) + softplus(D(G(z)))        G minimises  softplus(-D(G(z)))

Source: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016. With `--critic-norm batch --base-channels 64 --max-channels 512 --extra-layers 0
--latent-dim 100 --batch 128 --lr-g 2e-4 --lr-d 2e-4 --beta2 0.999` it is the paper's; the defaults differ where
something later is plainly better, and each says why.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from gan_fast import losses
from gan_fast.recipes.networks import AdamRecipe, NetworkRecipe
from gan_fast.recipes.techniques import TechniqueRecipe
from gan_fast.training.recipe import Budget, Penalties

LossName = Literal[
    "non_saturating",
    "minimax",
    "wasserstein",
    "hinge",
    "least_squares",
    "relativistic",
    "relativistic_average",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCGAN(TechniqueRecipe, AdamRecipe, NetworkRecipe):
    """DCGAN (Radford et al. 2016) with a spectrally normalised critic."""

    name: ClassVar[str] = "dcgan"
    # On digits the distance to held-out images falls until about 700 kimg and hardly after, while samples keep moving
    # towards single training images. The time keeps a first run on two busy cores under five minutes in all.
    default_budget: ClassVar[Budget] = Budget(images=700_000, seconds=210)

    # The paper's 128. On small images a step costs more in calls than in arithmetic, so a large batch is nearly free.
    batch: int = 128
    """Samples per step, over all processes."""

    # The paper has batch; spectral normalisation (Miyato et al. 2018) keeps a critic of 1,400 images from memorising
    # them and lets it score real and fake images in one pass.
    critic_norm: Literal["batch", "none", "spectral"] = "spectral"
    """How the convolutional critic is normalised: batch as in the paper, none, or spectral."""

    loss: LossName = "non_saturating"
    """Adversarial loss; the paper's is non_saturating."""

    label_smoothing: float = 0.0
    """One-sided: the critic's target for real images is 1 minus this, such as 0.1 (Salimans et al. 2016; non_saturating
    only). Helps where the critic grows too sure of itself and stops teaching."""

    # Twice the paper's 2e-4.
    lr_g: float = 4e-4
    """Adam's learning rate for the generator."""

    lr_d: float = 4e-4
    """Adam's learning rate for the critic. Two time scales (Heusel et al. 2017): two to four times lr_g helps where the
    critic lags behind the generator, the reverse where it wins."""

    # Section 4 of the paper: 0.9 made training oscillate.
    beta1: float = 0.5
    """Adam's decay of the mean gradient."""

    # The paper leaves Adam's 0.999; in a game gradients change faster than its thousand steps of memory.
    beta2: float = 0.99
    """Adam's decay of the squared gradient."""

    # Mescheder et al. 2018: with R1 the game converges where the critic's normalisation alone does not bring it to.
    r1: float = 0.0
    """Weight of r1/2 E |d logit / d real|^2 in the critic's loss."""

    # Huang et al. 2024 (R3GAN): the relativistic loss needs it too.
    r2: float = 0.0
    """Weight of r2/2 E |d logit / d fake|^2 in the critic's loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing and self.loss != "non_saturating":
            raise ValueError(f"label_smoothing is for the non_saturating loss only, got loss {self.loss!r}")
        self.loss_function()

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "r1", "r2")

    def loss_function(self) -> losses.AdversarialLoss:
        if self.loss == "non_saturating":
            return losses.NonSaturatingLoss(label_smoothing=self.label_smoothing)
        return losses.get(self.loss)()

    def penalties(self) -> Penalties:
        return Penalties(r1=self.r1, r2=self.r2)
