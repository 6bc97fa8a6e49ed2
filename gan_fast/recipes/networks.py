"""What recipes of one generator and one critic share: which networks play, and how Adam moves them.

images    the convolutional networks of DCGAN, or fully connected ones
points    fully connected networks
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import nn

from gan_fast.training.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkRecipe(Recipe):
    """Settings of the networks. Those of the convolutional ones are for images, `width` and `depth` for the others."""

    network: Literal["auto", "dcgan", "mlp"] = "auto"
    """Convolutional (images only) or fully connected. Default: dcgan for images, mlp for points."""

    # DCGAN's paper has 100 for 64x64 scenes. Points in the plane want a plane to come from: 30 seconds of the dcgan
    # recipe on grid25 (relativistic, r1 = r2 = 0.01, beta1 = 0) catch 18 modes out of 2 dimensions and 2 out of 64.
    latent_dim: int | None = None
    """Length of a latent vector. Default: 64 for images, for points as many as they have coordinates."""

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

    critic_norm: Literal["batch", "none", "spectral"] = "none"
    """How the convolutional critic is normalised."""

    generator_norm: Literal["batch", "none"] = "batch"
    """How the convolutional generator is normalised."""

    width: int = 128
    """Units of each hidden layer of a fully connected network."""

    depth: int = 3
    """Hidden layers of a fully connected network."""

    critic_steps: int = 1
    """Critic steps for each generator step."""

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        own = ("latent_dim", "base_channels", "max_channels", "width", "depth", "critic_steps")
        return (*super().positive_fields(), *own)

    def critic_sees(self) -> dict[str, Any]:
        """Settings of the critic's networks that look at more than one sample: none here."""
        return {}

    def latent_size(self, shape: tuple[int, ...]) -> int:
        return self.latent_dim or (shape[0] if len(shape) == 1 else 64)

    def generator_period(self) -> int:
        return self.critic_steps

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        points = len(shape) == 1
        latent_dim = self.latent_size(shape)
        if self.network == "dcgan" and points:
            raise ValueError(
                f"network dcgan is for images [C, H, H] and the data holds points {list(shape)}: "
                "use --network mlp or auto"
            )
        if self.network == "mlp" or points:
            size = {"width": self.width, "depth": self.depth}
            return "mlp", {"shape": list(shape), "latent_dim": latent_dim, **size, **self.critic_sees()}
        extra = self.extra_layers if self.extra_layers is not None else int(shape[-1] < 32)
        names = ("base_channels", "max_channels", "critic_norm", "generator_norm")
        own = {"latent_dim": latent_dim, "extra_layers": extra, **{name: getattr(self, name) for name in names}}
        return "dcgan", {"resolution": shape[-1], "channels": shape[0], **own, **self.critic_sees()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamRecipe(Recipe):
    """Adam for both networks, each at a rate of its own (two time scales, Heusel et al. 2017).

    The defaults are those of WGAN-GP; a recipe whose paper has others says so. Among bases it stands behind those that
    change defaults of Recipe's: a dataclass takes all fields of a base, inherited ones too.
    """

    lr_g: float = 1e-4
    """Adam's learning rate for the generator."""

    lr_d: float = 1e-4
    """Adam's learning rate for the critic."""

    beta1: float = 0.0
    """Adam's decay of the mean gradient."""

    beta2: float = 0.9
    """Adam's decay of the squared gradient."""

    @classmethod
    def decay_fields(cls) -> tuple[str, ...]:
        return (*super().decay_fields(), "beta1", "beta2")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "lr_g", "lr_d")

    def optimizers(
        self, generator: nn.Module, critic: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        betas = (self.beta1, self.beta2)
        return adam(generator, self.lr_g, betas), adam(critic, self.lr_d, betas)


def channels_at(side: int) -> int:
    """Channels of residual networks at an image's side that a CPU has time for: 512 / side, at least 8.

    With 64 at 32 pixels one core saw 17 images a second of an R3GAN; 16 at 8 pixels were too few for ddgan's critic.
    """
    return max(512 // side, 8)


def adam(network: nn.Module, lr: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """One kernel for all parameters; on CUDA with its step count on the device, so that a graph can hold it."""
    parameters, betas = list(network.parameters()), (float(betas[0]), float(betas[1]))
    return torch.optim.Adam(parameters, lr, betas, fused=True, capturable=parameters[0].device.type == "cuda")


def rmsprop(network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """torch has no fused one; this is one loop over lists of parameters."""
    parameters = list(network.parameters())
    return torch.optim.RMSprop(parameters, lr, foreach=True, capturable=parameters[0].device.type == "cuda")
