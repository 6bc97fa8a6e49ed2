"""DCGAN: a convolutional generator and critic trained with the non-saturating loss and Adam.

    D minimises  softplus(-D(x)) + softplus(D(G(z)))        G minimises  softplus(-D(G(z)))

Source: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016. With `--critic-norm batch --base-channels 64 --max-channels 512 --extra-layers 0
--latent-dim 100 --batch 128 --lr-g 2e-4 --lr-d 2e-4 --beta2 0.999` it is the paper's; the defaults differ where
something later is plainly better, and each says why.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from gan_fast import losses
from gan_fast.training.recipe import Budget, Recipe

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
class DCGAN(Recipe):
    """DCGAN (Radford et al. 2016) with a spectrally normalised critic."""

    name: ClassVar[str] = "dcgan"
    model: ClassVar[str] = "dcgan"
    # On digits the distance to held-out images falls until about 700 kimg and hardly after, while samples keep moving
    # towards single training images. The time keeps a first run on two busy cores under five minutes in all.
    default_budget: ClassVar[Budget] = Budget(images=700_000, seconds=210)

    # The paper's 128. On small images a step costs more in calls than in arithmetic, so a large batch is nearly free.
    batch: int = 128
    """Images per step, over all processes."""

    # The paper has 100 for 64x64 scenes.
    latent_dim: int = 64
    """Length of a latent vector."""

    # Half the paper's width: what two cores can train in minutes.
    base_channels: int = 32
    """Channels at half the image's side; each halving doubles them."""

    max_channels: int = 256
    """Most channels of any layer."""

    # Without them the 8x8 networks of the digits are two layers deep. At 32 pixels they take two thirds of the time
    # and give nothing for it: on Fashion-MNIST, after 180 seconds of one core, the proxy distance is at 1.12 of the
    # Gaussian's with them and at 0.41 without.
    extra_layers: int | None = None
    """3x3 convolutions added at each side. Default: 1 for images below 32 pixels, 0 (the paper) from there."""

    # The paper has batch; spectral normalisation (Miyato et al. 2018) keeps a critic of 1,400 images from memorising
    # them and lets it score real and fake images in one pass.
    critic_norm: Literal["batch", "none", "spectral"] = "spectral"
    """How the critic is normalised: batch as in the paper, none, or spectral."""

    generator_norm: Literal["batch", "none"] = "batch"
    """How the generator is normalised."""

    loss: LossName = "non_saturating"
    """Adversarial loss; the paper's is non_saturating."""

    label_smoothing: float = 0.0
    """One-sided: the critic's target for real images is 1 minus this (non_saturating only)."""

    # Twice the paper's 2e-4.
    lr_g: float = 4e-4
    """Adam's learning rate for the generator."""

    lr_d: float = 4e-4
    """Adam's learning rate for the critic."""

    # Section 4 of the paper: 0.9 made training oscillate.
    beta1: float = 0.5
    """Adam's decay of the mean gradient."""

    # The paper leaves Adam's 0.999; in a game gradients change faster than its thousand steps of memory.
    beta2: float = 0.99
    """Adam's decay of the squared gradient."""

    critic_steps: int = 1
    """Critic steps for each generator step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, field) < 1.0:
                raise ValueError(f"{field} must be in [0, 1), got {getattr(self, field)!r}")
        if self.label_smoothing and self.loss != "non_saturating":
            raise ValueError(f"label_smoothing is for the non_saturating loss only, got loss {self.loss!r}")
        self.loss_function()

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        own = ("latent_dim", "base_channels", "max_channels", "lr_g", "lr_d", "critic_steps")
        return (*super().positive_fields(), *own)

    def model_config(self, resolution: int, channels: int) -> dict[str, Any]:
        extra = self.extra_layers if self.extra_layers is not None else int(resolution < 32)
        own = ("latent_dim", "base_channels", "max_channels", "critic_norm", "generator_norm")
        settings = {name: getattr(self, name) for name in own}
        return {"resolution": resolution, "channels": channels, "extra_layers": extra, **settings}

    def latent_size(self) -> int:
        return self.latent_dim

    def loss_function(self) -> losses.AdversarialLoss:
        if self.loss == "non_saturating":
            return losses.NonSaturatingLoss(label_smoothing=self.label_smoothing)
        return losses.get(self.loss)()

    def generator_period(self) -> int:
        return self.critic_steps

    def optimizers(
        self, generator: nn.Module, critic: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        def adam(network: nn.Module, lr: float) -> torch.optim.Adam:
            parameters = list(network.parameters())
            # One kernel for all parameters; on CUDA with its step count on the device, so that a graph can hold it.
            capturable = parameters[0].device.type == "cuda"
            return torch.optim.Adam(parameters, lr, (self.beta1, self.beta2), fused=True, capturable=capturable)

        return adam(generator, self.lr_g), adam(critic, self.lr_d)
