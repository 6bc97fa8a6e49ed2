"""Diffusion-GAN: the critic sees real and generated samples through a forward diffusion of adaptive length T.

    y = sqrt(abar_t) x + sqrt(1 - abar_t) sigma e,    e ~ N(0, I),    abar_t = prod_{s <= t} (1 - beta_s)
    beta_s from beta_0 at s = 1 to beta_T at s = T, evenly
    t = 0 for half of the samples, else  uniform: P(t) = 1 / T,   priority: P(t) = t / (1 + ... + T),   t = 1 ... T

    D minimises  softplus(-D(y, t)) + softplus(D(y_g, t))        G minimises  softplus(-D(y_g, t)),  through y_g
    r_d = E sign D(y, t) over real samples;   every 4 steps  T <- T + sign(r_d - d_target) C

A critic that is sure of its real samples gets longer chains, so noisier samples, and the generator's gradient passes
through the noise. It goes with the networks of any other recipe (`--network`).

Source: Wang, Zheng, He, Chen and Zhou, "Diffusion-GAN: Training GANs with Diffusion", ICLR 2023, section 3 and
algorithm 1: beta_0 = 1e-4, beta_T = 0.02, sigma = 0.05, d_target = 0.6 and T from 5 to at most 1000 are its. T moves as
ADA's p does, of which it is a multiple. Networks, batch and optimiser are by default those of recipe dcgan.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gan_fast.augment import AdaptiveProbability
from gan_fast.augment.draws import Draws
from gan_fast.losses import AdversarialLoss, CriticStats, NonSaturatingLoss
from gan_fast.models import stylegan2
from gan_fast.penalties import critic_backward
from gan_fast.recipes.networks import AdamRecipe, NetworkRecipe
from gan_fast.training.distributed import average_gradients, mean
from gan_fast.training.recipe import Budget, Penalties
from gan_fast.training.step import Players, Step, StepStats

# Half of the samples are not diffused (algorithm 1: 32 of the 64 timesteps to draw from are 0).
_CLEAN = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionGAN(AdamRecipe, NetworkRecipe):
    """Diffusion-GAN (Wang et al. 2023): instance noise from a diffusion whose length follows the critic."""

    name: ClassVar[str] = "diffusion_gan"
    default_budget: ClassVar[Budget] = Budget(images=700_000, seconds=240)

    network: Literal["auto", "dcgan", "mlp", "r3gan", "stylegan2"] = "auto"  # type: ignore[assignment]
    """Whose networks: dcgan's, mlp's, r3gan's or stylegan2's. Default: dcgan for images, mlp for points."""

    batch: int = 128
    """Samples per step, over all processes."""

    critic_norm: Literal["batch", "none", "spectral"] = "spectral"
    """How dcgan's critic is normalised."""

    timestep_channels: int = 4
    """Length of the learned embedding of t, which the critic sees as so many more channels, or coordinates."""

    timesteps: Literal["priority", "uniform"] = "priority"
    """How t is drawn from 1 to T: in proportion to t, or evenly."""

    least_steps: int = 5
    """T at first, and at least."""

    most_steps: int = 1000
    """T at most."""

    noise: float = 0.05
    """Sigma, the standard deviation of the noise at the end of a long chain, in units of the samples, [-1, 1] of
    images."""

    beta_first: float = 1e-4
    """Variance of the first step of the chain, as a share."""

    beta_last: float = 0.02
    """Variance of its last step."""

    target: float = 0.6
    """d_target, what r_d = E sign(real logit) is steered to: the lower, the longer the chain."""

    target_kimg: float = 100.0
    """Thousand images in which T can go from the least to the most."""

    target_every: int = 4
    """Steps between two moves of T."""

    lr_g: float = 4e-4
    """Adam's learning rate for the generator."""

    lr_d: float = 4e-4
    """Adam's learning rate for the critic."""

    beta1: float = 0.5
    """Adam's decay of the mean gradient."""

    beta2: float = 0.99
    """Adam's decay of the squared gradient."""

    r1: float = 0.0
    """Weight of r1/2 E |d logit / d y|^2 at diffused real samples y in the critic's loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.beta_first <= self.beta_last < 1.0:
            raise ValueError(
                f"beta_first and beta_last must rise within (0, 1), got {self.beta_first!r} and {self.beta_last!r}"
            )
        if not self.least_steps <= self.most_steps:
            raise ValueError(
                f"T must have room to move: least_steps is {self.least_steps} and most_steps {self.most_steps}"
            )
        if not -1.0 <= self.target <= 1.0:
            raise ValueError(f"target is of a mean of signs and must be in [-1, 1], got {self.target!r}")
        if self.updates == "simultaneous":
            raise ValueError("diffusion_gan draws new noise for each network's update: use --updates alternating")
        if self.r1 and self.critic_norm == "batch" and self.network in ("auto", "dcgan"):
            raise ValueError("r1 is each sample's own and critic_norm 'batch' mixes them: use spectral or none")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        own = ("timestep_channels", "least_steps", "most_steps", "target_kimg", "target_every")
        return (*super().positive_fields(), *own)

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "noise", "r1")

    def loss_function(self) -> AdversarialLoss:
        return NonSaturatingLoss()

    def penalties(self) -> Penalties:
        return Penalties(r1=self.r1)

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        name, config = self._of_others(shape) if self.network in ("r3gan", "stylegan2") else super().networks(shape)
        return "timesteps", {"network": name, "timestep_channels": self.timestep_channels, **config}

    def _of_others(self, shape: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
        if len(shape) == 1:
            raise ValueError(
                f"network {self.network} is for images [C, H, H] and the data holds points {list(shape)}: "
                "use --network mlp or auto"
            )
        size = {"resolution": shape[-1], "channels": shape[0], "latent_dim": self.latent_size(shape)}
        if self.network == "r3gan":
            group = min(16, self.base_channels)
            widths = {"base_channels": self.base_channels, "max_channels": self.max_channels}
            return "r3gan", {**size, **widths, "blocks": 1, "group_size": group}
        # Without minibatch deviation, so that no sample's logit depends on another's noise.
        return "stylegan2", {
            **size,
            "w_dim": self.latent_size(shape),
            "mapping_layers": 2,
            "channel_base": self.base_channels * shape[-1],
            "channel_max": self.max_channels,
            "mbstd_group_size": None,
            "mbstd_channels": 0,
        }

    def step(self, players: Players) -> Step:
        return DiffusionGANStep(players, self)


class Diffused(NamedTuple):
    """y `[N, *shape]` and t, int64 `[N]`."""

    samples: Tensor
    timesteps: Tensor


class AdaptiveDiffusion:
    """y and t of samples, and the chain's length T = least + p (most - least), p in [0, 1] following the critic."""

    def __init__(self, recipe: DiffusionGAN, device: torch.device) -> None:
        self.recipe = recipe
        self.controller = AdaptiveProbability(
            torch.zeros((), device=device),
            target=recipe.target,
            kimg=recipe.target_kimg,
            interval=recipe.target_every,
        )

    @property
    def length(self) -> Tensor:
        """T, a whole number, 0-dim."""
        least, most = self.recipe.least_steps, self.recipe.most_steps
        return (least + self.controller.p * (most - least)).floor()

    def log_abar(self) -> Tensor:
        """log abar_t by t, fp32 `[most + 1]`; beyond T it means nothing."""
        recipe = self.recipe
        s = torch.arange(recipe.most_steps, device=self.controller.p.device)
        share = (s / (self.length - 1).clamp_min(1)).clamp_max(1)
        beta = recipe.beta_first + (recipe.beta_last - recipe.beta_first) * share
        return torch.nn.functional.pad(torch.log1p(-beta).cumsum(0), (1, 0))

    def timesteps(self, draws: Draws) -> Tensor:
        """int64 `[N]`, 0 for half of the samples."""
        length, clean, u = self.length, draws.uniform() < _CLEAN, draws.uniform()
        if self.recipe.timesteps == "uniform":
            t = 1 + (u * length).floor()
        else:
            # The least t with t (t + 1) > u T (T + 1).
            t = (0.5 * ((1 + 4 * u * length * (length + 1)).sqrt() - 1)).floor() + 1
        # Rounding may carry u = 1 - 2^-24 beyond the end.
        return torch.where(clean, 0, torch.minimum(t, length)).long()

    def __call__(self, samples: Tensor, draws: Draws) -> Diffused:
        """Differentiable in `samples`, fp32 `[N, *shape]`."""
        t = self.timesteps(draws)
        log_abar = self.log_abar()[t].view(-1, *[1] * (samples.dim() - 1))
        noise = self.recipe.noise * draws.normal(*samples.shape[1:])
        return Diffused((0.5 * log_abar).exp() * samples + (-log_abar.expm1()).sqrt() * noise, t)


class DiffusionGANStep:
    """Algorithm 1. Latents, timesteps and noise are drawn by the sample's place in the whole batch."""

    def __init__(self, players: Players, recipe: DiffusionGAN) -> None:
        self.generator, self.critic = players.generator, players.critic
        self.generator_optimizer, self.critic_optimizer = players.optimizers
        self.latents, self.machine, self.world = players.latents, players.machine, players.world
        self.generator_period, self.r1 = recipe.generator_period(), recipe.penalties().r1
        self.loss = recipe.loss_function()
        device = self.machine.device
        self.diffusion = AdaptiveDiffusion(recipe, device)
        self.streams = {
            name: torch.Generator(device).manual_seed(recipe.seed + offset)
            for offset, name in enumerate(("diffusion", "noise"), 1)
        }
        # Batch normalisation must see real and fake samples apart, see `AdversarialStep`.
        self._scores_together = not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.critic.modules())
        self._generator_loss = torch.zeros((), device=device)

    def __call__(self, real: Tensor, step: int, labels: Tensor | None = None) -> StepStats:
        """Step number `step`, from 1, on real samples, images `[N, C, H, W]` in [-1, 1] or points `[N, D]`."""
        stats = self.train_critic(real)
        if step % self.generator_period == 0:
            self._generator_loss = self.train_generator(len(real))
        self.diffusion.controller.update(stats.real_sign_mean, len(real), step)
        return StepStats(stats, self._generator_loss)

    def train_critic(self, real: Tensor) -> CriticStats:
        with torch.no_grad():
            fake = self._generate(len(real))
            real_seen, fake_seen = self._diffuse(real), self._diffuse(fake)
        self.critic_optimizer.zero_grad(set_to_none=True)
        if self.r1:
            kwargs = [{"timesteps": seen.timesteps} for seen in (real_seen, fake_seen)]
            with self.machine.autocast():
                stats = critic_backward(
                    self.critic,
                    real=real_seen.samples,
                    fake=fake_seen.samples,
                    loss=self.loss,
                    r1=self.r1,
                    critic_kwargs=kwargs,
                )
        else:
            with self.machine.autocast():
                real_logits, fake_logits = self._logits(real_seen, fake_seen)
            loss, stats = self.loss.discriminator(real=real_logits, fake=fake_logits, with_stats=True)
            loss.backward()
        self._descend(self.critic, self.critic_optimizer)
        return stats

    def train_generator(self, count: int) -> Tensor:
        # The critic only passes the gradient on: its own weight gradients would be computed for nothing.
        self.critic.requires_grad_(False)
        seen = self._diffuse(self._generate(count))
        with self.machine.autocast():
            logits = self.critic(*seen)
        loss: Tensor = self.loss.generator(fake=logits)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._descend(self.generator, self.generator_optimizer)
        self.critic.requires_grad_(True)
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        controller = self.diffusion.controller
        return {
            "diffusion_p": controller.p,
            "diffusion_statistics": controller.statistics,
            "diffusion_r": controller.r,
            "generator_loss": self._generator_loss,
        }

    def figures(self) -> dict[str, Tensor]:
        return {"diffusion_steps": self.diffusion.length, "diffusion_r": self.diffusion.controller.r}

    def _generate(self, count: int) -> Tensor:
        """fp32 `[count, *shape]`."""
        latents = self.latents.draw(count)
        with self.machine.autocast():
            if not isinstance(self.generator, stylegan2.Generator):
                samples: Tensor = self.generator(latents)
                return samples.float()
            draws = self._draws(count, "noise")
            samples = self.generator(latents, noise_generator=lambda n, side: draws.normal(1, side, side))
        if self.world.size > 1:
            # Each rank moved the running mean style by its own part of the batch.
            w_avg = self.generator.mapping.w_avg
            w_avg.copy_(mean(w_avg.clone(), self.world))
        return samples.float()

    def _diffuse(self, samples: Tensor) -> Diffused:
        return self.diffusion(samples, self._draws(len(samples), "diffusion"))

    def _draws(self, count: int, stream: str) -> Draws:
        return Draws(count, self.machine.device, self.streams[stream], (self.world.rank, self.world.size))

    def _logits(self, real: Diffused, fake: Diffused) -> tuple[Tensor, Tensor]:
        if not self._scores_together:
            return self.critic(*real), self.critic(*fake)
        both = [torch.cat(parts) for parts in zip(real, fake, strict=True)]
        real_logits, fake_logits = self.critic(*both).chunk(2)
        return real_logits, fake_logits

    def _descend(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        average_gradients(network.parameters(), self.world)
        optimizer.step()
