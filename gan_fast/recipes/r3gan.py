"""R3GAN: the relativistic pairing loss with R1 and R2 at every step, and modern networks without tricks.

    D minimises  E softplus(D(G(z)) - D(x)) + gamma/2 E |grad D(x)|^2 + gamma/2 E |grad D(G(z))|^2
    G minimises  E softplus(D(x) - D(G(z)))

The penalties are what makes the loss converge, and here they are cheap: one exact `critic_backward` for all
three terms. During the burn-in the learning rate, gamma, Adam's beta2 and the average's half-life move along half a
cosine,

    value(t) = end + (start - end) (1 + cos(pi min(t / burn_in, 1))) / 2        t images

Source: Huang et al., "The GAN is dead; long live the GAN! A Modern Baseline GAN", 2024, sections 3 and 4 and appendix.
Its CIFAR-10 run has lr 2e-4 to 5e-5, gamma 0.05 to 0.005, beta2 0.9 to 0.99, batch 512, a burn-in of 20 million images
and a half-life of 5 million; the schedules here have that form with values for networks that two cores can train.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from gan_fast import losses
from gan_fast.recipes.networks import adam, channels_at
from gan_fast.recipes.techniques import TechniqueRecipe
from gan_fast.training.ema import EMA
from gan_fast.training.recipe import Budget, Penalties
from gan_fast.training.step import AdversarialStep, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class R3GAN(TechniqueRecipe):
    """R3GAN (Huang et al. 2024): relativistic loss, R1 and R2 at every step, Fixup residual networks."""

    name: ClassVar[str] = "r3gan"
    default_budget: ClassVar[Budget] = Budget(images=2_000_000, seconds=600)

    network: Literal["auto", "r3gan", "mlp"] = "auto"
    """Residual (images only) or fully connected. Default: r3gan for images, mlp for points."""

    # Steps are what two cores are short of.
    batch: int = 64
    """Samples per step, over all processes; the paper's CIFAR-10 run has 512."""

    latent_dim: int | None = None
    """Length of a latent vector. Default: the paper's 64 for images, for points as many as they have coordinates."""

    base_channels: int | None = None
    """Channels at the image's side, doubled at each halving; the paper's CIFAR-10 run has 768 at every side. Default:
    512 / side, at least 8."""

    max_channels: int = 128
    """Most channels of any stage."""

    blocks: int = 1
    """Residual blocks a stage; the paper has 2."""

    expansion: int = 2
    """How much wider a block is inside."""

    group_size: int = 16
    """Channels in each group of the 3x3 convolutions."""

    width: int = 128
    """Units of each hidden layer of a fully connected network."""

    depth: int = 3
    """Hidden layers of a fully connected network."""

    # At the paper's rates and gammas these small networks learn slowly and their critic tells noise of the generator's
    # from the data's exact blacks: stacked digits after 200 thousand images, KL 0.93 at gamma 0.5 and a rate of 5e-4,
    # 0.77 at 5 and 5e-4, 0.51 at 5 and 1e-3, 0.28 at 10 and 2e-3.
    lr: float = 2e-3
    """Adam's learning rate for both networks, at first; the paper's CIFAR-10 run has 2e-4."""

    lr_end: float = 1e-4
    """And after the burn-in; the paper has 5e-5."""

    gamma: float = 10.0
    """Weight of R1 and of R2, at first; the paper's CIFAR-10 run has 0.05."""

    gamma_end: float = 2.0
    """And after the burn-in; the paper has 0.005."""

    beta2: float = 0.9
    """Adam's decay of the squared gradient, at first; that of the mean gradient is 0."""

    beta2_end: float = 0.99
    """And after the burn-in."""

    ema_kimg: float = 10.0
    """Half-life of the averaged generator after the burn-in, in thousand images; from 0. The paper has 5,000."""

    burn_in_kimg: float = 200.0
    """Length of the schedules, in thousand images; the paper has 20,000."""

    @classmethod
    def decay_fields(cls) -> tuple[str, ...]:
        return (*super().decay_fields(), "beta2", "beta2_end")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        sizes = ("latent_dim", "base_channels", "max_channels", "blocks", "expansion", "group_size", "width", "depth")
        return (*super().positive_fields(), *sizes, "lr", "lr_end", "burn_in_kimg")

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "gamma", "gamma_end")

    def latent_size(self, shape: tuple[int, ...]) -> int:
        return self.latent_dim or (shape[0] if len(shape) == 1 else 64)

    def generator_period(self) -> int:
        return 1

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        if self.network == "mlp" or (self.network == "auto" and len(shape) == 1):
            size = {"width": self.width, "depth": self.depth}
            return "mlp", {"shape": list(shape), "latent_dim": self.latent_size(shape), **size, **self.critic_sees()}
        if len(shape) == 1:
            raise ValueError(
                f"network r3gan is for images [C, H, H] and the data holds points {list(shape)}: "
                "use --network mlp or auto"
            )
        names = ("max_channels", "blocks", "expansion", "group_size")
        own = {"latent_dim": self.latent_size(shape), "base_channels": self.base_channels or channels_at(shape[-1])}
        own |= {name: getattr(self, name) for name in names}
        return "r3gan", {"resolution": shape[-1], "channels": shape[0], **own, **self.critic_sees()}

    def loss_function(self) -> losses.AdversarialLoss:
        return losses.RelativisticLoss()

    def penalties(self) -> Penalties:
        return Penalties(r1=self.gamma, r2=self.gamma)

    def optimizers(
        self, generator: nn.Module, critic: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        betas = (0.0, self.beta2)
        return adam(generator, self.lr, betas), adam(critic, self.lr, betas)

    def at(self, images: int) -> dict[str, float]:
        """The scheduled settings after `images` images: lr, gamma, beta2 and ema_kimg."""
        share = min(images / (1000 * self.burn_in_kimg), 1.0)
        ends = {
            "lr": (self.lr, self.lr_end),
            "gamma": (self.gamma, self.gamma_end),
            "beta2": (self.beta2, self.beta2_end),
            "ema_kimg": (0.0, self.ema_kimg),
        }
        return {name: end + (start - end) * (1 + math.cos(math.pi * share)) / 2 for name, (start, end) in ends.items()}

    def follow(
        self,
        images: int,
        step: Step,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        average: EMA,
    ) -> None:
        super().follow(images, step, optimizers, average)
        now = self.at(images)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = now["lr"], (0.0, now["beta2"])
        assert isinstance(step, AdversarialStep)
        step.penalties = Penalties(r1=now["gamma"], r2=now["gamma"])
        average.half_life = now["ema_kimg"] * 1000
