"""Denoising diffusion GAN: a conditional GAN for each of a few large denoising steps, T = 4, all in one network.

    x_0 ~ data,  t ~ U{1, ..., T},  x_{t-1} ~ q(x_{t-1} | x_0),  x_t ~ q(x_t | x_{t-1})
    x_0' = G(x_t, z, t),  x'_{t-1} ~ q(x_{t-1} | x_t, x_0'),     z ~ N(0, I)

    D minimises  softplus(-D(x_{t-1}, x_t, t)) + softplus(D(x'_{t-1}, x_t, t))
                 and now and then  r1/2 E |d D(x_{t-1}, x_t, t) / d x_{t-1}|^2
    G minimises  softplus(-D(x'_{t-1}, x_t, t))

The steps are so large that q(x_{t-1} | x_t) has many modes, which an ordinary diffusion model's Gaussian has not and
this generator's z has. Networks, schedule and sampler are in `gan_fast/models/ddgan.py`.

Source: Xiao, Kreis and Vahdat, "Tackling the Generative Learning Trilemma with Denoising Diffusion GANs", ICLR 2022,
section 4 and appendix C. Its CIFAR-10 run has T = 4, r1 = 0.02 every 15 steps, Adam at 1.6e-4 and 1.25e-4 with betas
(0.5, 0.9), batch 256; what differs here says why.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gan_fast.augment.draws import Draws
from gan_fast.losses import AdversarialLoss, CriticStats, NonSaturatingLoss
from gan_fast.models import ddgan
from gan_fast.penalties import critic_backward
from gan_fast.recipes.networks import AdamRecipe, channels_at
from gan_fast.training.distributed import average_gradients
from gan_fast.training.recipe import Budget, Penalties
from gan_fast.training.step import Players, Step, StepStats


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDGAN(AdamRecipe):
    """Denoising diffusion GAN (Xiao et al. 2022): few-step generation, a time-dependent critic, lazy R1."""

    name: ClassVar[str] = "ddgan"
    default_budget: ClassVar[Budget] = Budget(images=1_000_000, seconds=600)

    network: Literal["auto", "unet", "mlp"] = "auto"
    """A U-Net against a convolutional critic (images only), or both fully connected. Default: unet for images, mlp for
    points."""

    denoising_steps: int = 4
    """T, passes through the generator for a sample; the paper has 1, 2, 4 and 8."""

    batch: int = 64
    """Samples per step, over all processes."""

    latent_dim: int | None = None
    """Length of z, of which each pass has its own. Default: 64 for images, for points as many as they have
    coordinates."""

    # The paper's U-Net has 128 channels at the image's side and 256 below, and two blocks a side.
    base_channels: int = 16
    """Channels of the U-Net at the image's side, doubled at each halving."""

    max_channels: int = 64
    """Most channels of the U-Net."""

    blocks: int = 1
    """Residual blocks of the U-Net at each side, on the way down and again on the way up."""

    style_dim: int = 128
    """Length of the mapped z, which scales and shifts every normalised layer of the U-Net."""

    critic: Literal["residual", "dcgan"] = "residual"
    """The convolutional critic: R3GAN's residual one, or DCGAN's."""

    # The critic's width is what small pictures were short of: digits, 64 kimg, with 16 channels at 8 pixels a proxy
    # distance of 35, with 64 of 23.
    critic_channels: int | None = None
    """Channels of the convolutional critic at the image's side (residual) or half of it (dcgan), doubled at each
    halving. Default: 512 / side, at least 8."""

    critic_max_channels: int = 128
    """Most channels of the convolutional critic."""

    # The paper's residual critic has none. DCGAN's without any, on digits at 5e-4, gave the same logit to everything
    # (loss 1.386) by 45 kimg.
    critic_norm: Literal["none", "spectral"] = "spectral"
    """How dcgan's critic is normalised."""

    timestep_channels: int = 4
    """Length of the learned embedding of t, which the critic sees as so many more channels, or coordinates."""

    width: int = 128
    """Units of each hidden layer of a fully connected network."""

    depth: int = 3
    """Hidden layers of a fully connected network."""

    # The paper's are 1.6e-4 and 1.25e-4 with betas (0.5, 0.9), for networks a hundred times these.
    lr_g: float = 1e-3
    """Adam's learning rate for the generator."""

    lr_d: float = 1e-3
    """Adam's learning rate for the critic."""

    beta1: float = 0.0
    """Adam's decay of the mean gradient."""

    beta2: float = 0.99
    """Adam's decay of the squared gradient."""

    r1: float = 0.02
    """Weight of R1 at the real x_(t-1)."""

    r1_every: int = 15
    """Steps between two updates with R1, which does not weigh more for being rare: so it is in the authors' code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.updates == "simultaneous":
            raise ValueError("ddgan draws new timesteps for each network's update: use --updates alternating")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        sizes = ("denoising_steps", "latent_dim", "base_channels", "max_channels", "blocks", "style_dim", "width")
        critic = ("critic_channels", "critic_max_channels", "timestep_channels", "depth")
        return (*super().positive_fields(), *sizes, *critic, "r1_every")

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "r1")

    def latent_size(self, shape: tuple[int, ...]) -> int:
        return ddgan.latent_size(shape, self.denoising_steps, self._z_size(shape))

    def _z_size(self, shape: tuple[int, ...]) -> int:
        return self.latent_dim or (shape[0] if len(shape) == 1 else 64)

    def generator_period(self) -> int:
        return 1

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        points = len(shape) == 1
        if self.network == "unet" and points:
            raise ValueError(
                f"network unet is for images [C, H, H] and the data holds points {list(shape)}: "
                "use --network mlp or auto"
            )
        shared = {
            "shape": list(shape),
            "steps": self.denoising_steps,
            "latent_dim": self._z_size(shape),
            "timestep_channels": self.timestep_channels,
        }
        if self.network == "mlp" or points:
            size = {"width": self.width, "depth": self.depth}
            critic = {"shape": list(shape), **size}
            return "ddgan", {**shared, "network": "mlp", **size, "critic_network": "mlp", "critic": critic}
        names = ("style_dim", "base_channels", "max_channels", "blocks")
        width = self.critic_channels or channels_at(shape[-1])
        critic = {
            "resolution": shape[-1],
            "channels": shape[0],
            "base_channels": width,
            "max_channels": self.critic_max_channels,
        }
        if self.critic == "residual":
            group = math.gcd(16, 2 * width, 2 * self.critic_max_channels)
            critic |= {"blocks": 1, "expansion": 2, "group_size": group}
        else:
            critic |= {"extra_layers": int(shape[-1] < 32), "critic_norm": self.critic_norm}
        own = {name: getattr(self, name) for name in names}
        judge = {"critic_network": "r3gan" if self.critic == "residual" else "dcgan", "critic": critic}
        return "ddgan", {**shared, "network": "unet", **judge, **own}

    def loss_function(self) -> AdversarialLoss:
        return NonSaturatingLoss()

    def penalties(self) -> Penalties:
        return Penalties(r1=self.r1)

    def step(self, players: Players) -> Step:
        return DDGANStep(players, self)


class Pair(NamedTuple):
    """x_{t-1} and x_t, `[N, *shape]`, of real samples, and t, int64 `[N]`."""

    samples: Tensor
    noisy: Tensor
    timesteps: Tensor


class DDGANStep:
    """The two updates, each at timesteps of its own. All is drawn by the sample's place in the whole batch."""

    def __init__(self, players: Players, recipe: DDGAN) -> None:
        assert isinstance(players.generator, ddgan.Generator)
        self.generator, self.critic = players.generator, players.critic
        self.generator_optimizer, self.critic_optimizer = players.optimizers
        self.machine, self.world = players.machine, players.world
        self.loss = recipe.loss_function()
        self.r1, self.r1_every = recipe.r1, recipe.r1_every
        device = self.machine.device
        # The sampler's latents are not what a step draws: it takes one of the T passes.
        self.streams = {"diffusion": torch.Generator(device).manual_seed(recipe.seed + 1)}
        self._r1 = torch.zeros((), device=device)

    def __call__(self, real: Tensor, step: int, labels: Tensor | None = None) -> StepStats:
        """Step number `step`, from 1, on real samples, images `[N, C, H, W]` in [-1, 1] or points `[N, D]`."""
        stats = self.train_critic(real, bool(self.r1) and (step - 1) % self.r1_every == 0)
        return StepStats(stats, self.train_generator(real))

    def train_critic(self, real: Tensor, with_r1: bool) -> CriticStats:
        with torch.no_grad():
            pair = self._diffuse(real)
            fake = self._denoise(pair)
        self.critic_optimizer.zero_grad(set_to_none=True)
        if with_r1:
            with self.machine.autocast():
                stats = critic_backward(
                    self.critic,
                    real=pair.samples,
                    fake=fake,
                    loss=self.loss,
                    r1=self.r1,
                    critic_kwargs={"noisy": pair.noisy, "timesteps": pair.timesteps},
                )
            assert stats.r1 is not None
            self._r1 = stats.r1
        else:
            with self.machine.autocast():
                both = [torch.cat(parts) for parts in zip(pair, (fake, *pair[1:]), strict=True)]
                real_logits, fake_logits = self.critic(*both).chunk(2)
            loss, stats = self.loss.discriminator(real=real_logits, fake=fake_logits, with_stats=True)
            loss.backward()
        self._descend(self.critic, self.critic_optimizer)
        return stats

    def train_generator(self, real: Tensor) -> Tensor:
        # The critic only passes the gradient on: its own weight gradients would be computed for nothing.
        self.critic.requires_grad_(False)
        pair = self._diffuse(real)
        fake = self._denoise(pair)
        with self.machine.autocast():
            logits = self.critic(fake, *pair[1:])
        loss: Tensor = self.loss.generator(fake=logits)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._descend(self.generator, self.generator_optimizer)
        self.critic.requires_grad_(True)
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        return {"r1_value": self._r1}

    def figures(self) -> dict[str, Tensor]:
        return {"r1": self._r1} if self.r1 else {}

    def _diffuse(self, real: Tensor) -> Pair:
        draws, process = self._draws(real), self.generator.diffusion
        shape = real.shape[1:]
        t = 1 + (draws.uniform() * process.steps).long().clamp_max(process.steps - 1)
        before = process.diffuse(real, t - 1, draws.normal(*shape))
        return Pair(before, process.step(before, t, draws.normal(*shape)), t)

    def _denoise(self, pair: Pair) -> Tensor:
        """x'_{t-1}."""
        draws, noisy, t = self._draws(pair.noisy), pair.noisy, pair.timesteps
        latents, noise = draws.normal(self.generator.latent_dim), draws.normal(*noisy.shape[1:])
        with self.machine.autocast():
            clean = self.generator.denoise(noisy, latents, t)
        return self.generator.diffusion.posterior(clean, noisy, t, noise)

    def _draws(self, samples: Tensor) -> Draws:
        share = (self.world.rank, self.world.size)
        return Draws(len(samples), self.machine.device, self.streams["diffusion"], share)

    def _descend(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        average_gradients(network.parameters(), self.world)
        optimizer.step()
