"""Denoising diffusion GAN: a generator that denoises in T large steps, and a critic of pairs (x_{t-1}, x_t, t).

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
    beta_t = 1 - exp(-beta_min / T - (beta_max - beta_min) (2t - 1) / (2 T^2)),    beta_min = 0.1, beta_max = 20
    abar_t = prod_{s <= t} (1 - beta_s)                                            t = 1 ... T
    q(x_{t-1} | x_t, x_0) = N(sqrt(abar_{t-1}) beta_t / (1 - abar_t) x_0
                              + sqrt(1 - beta_t) (1 - abar_{t-1}) / (1 - abar_t) x_t,
                              (1 - abar_{t-1}) / (1 - abar_t) beta_t I)

    G(x_t, z, t) = x_0'        sampling: x_T ~ N(0, I);  x_{t-1} ~ q(x_{t-1} | x_t, G(x_t, z_t, t)) down to x_0

One latent of the sampler holds all of its random numbers, x_T, every z_t and the noise of every step, so that a sample
is a deterministic function of its latent, and so of its seed.

Source: Xiao, Kreis and Vahdat, "Tackling the Generative Learning Trilemma with Denoising Diffusion GANs", ICLR 2022,
equations 1 to 4 and appendix C; the schedule is the variance preserving one of Song et al., "Score-Based Generative
Modeling through Stochastic Differential Equations", 2021, whose NCSN++ the U-Net follows in small.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast import ops
from gan_fast.models import mlp
from gan_fast.models.convolution import Conv2d
from gan_fast.models.timesteps import SINUSOIDS, TimestepCritic, TimestepEmbedding, build_critic, sinusoids

BETA_MIN, BETA_MAX = 0.1, 20.0
_FILTER = (1, 3, 3, 1)
# Channels of a group in group normalisation.
_GROUP = 8
# Length of e(t) in a fully connected denoiser.
_TIME = 16


class Diffusion(nn.Module):
    """The forward process and its posterior, in T steps. Timesteps are int64 `[N]`, samples `[N, *shape]`."""

    signal: Tensor
    noise: Tensor
    step_signal: Tensor
    step_noise: Tensor
    posterior_clean: Tensor
    posterior_noisy: Tensor
    posterior_noise: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        log_alpha = -BETA_MIN / steps - (BETA_MAX - BETA_MIN) * (2 * t - 1) / (2 * steps**2)
        alpha, beta = log_alpha.exp(), -log_alpha.expm1()
        abar = torch.cat([torch.ones(1, dtype=torch.float64), log_alpha.cumsum(0).exp()])
        before, left = abar[:-1], 1 - abar[1:]
        # By t, from 0; nothing is taken of t = 0 where a step leads to it.
        tables = {
            "signal": abar.sqrt(),
            "noise": (1 - abar).sqrt(),
            "step_signal": F.pad(alpha.sqrt(), (1, 0)),
            "step_noise": F.pad(beta.sqrt(), (1, 0)),
            "posterior_clean": F.pad(before.sqrt() * beta / left, (1, 0)),
            "posterior_noisy": F.pad(alpha.sqrt() * (1 - before) / left, (1, 0)),
            "posterior_noise": F.pad(((1 - before) / left * beta).sqrt(), (1, 0)),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def diffuse(self, clean: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """x_t of x_0 = `clean`."""
        return _rows(self.signal, timesteps, clean) * clean + _rows(self.noise, timesteps, clean) * noise

    def step(self, before: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """x_t of x_{t-1} = `before`."""
        return _rows(self.step_signal, timesteps, before) * before + _rows(self.step_noise, timesteps, before) * noise

    def posterior(self, clean: Tensor, noisy: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """x_{t-1} of x_0 = `clean` and x_t = `noisy`; for t = 1 it is x_0."""
        return (
            _rows(self.posterior_clean, timesteps, clean) * clean
            + _rows(self.posterior_noisy, timesteps, clean) * noisy
            + _rows(self.posterior_noise, timesteps, clean) * noise
        )


def _rows(table: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    return table[timesteps].view(-1, *[1] * (like.dim() - 1))


class Generator(nn.Module):
    """Latents `[N, latent_size]` to samples `[N, *shape]`, by T passes through `denoiser(x_t, z, t)`.

    A latent is T rows, of t = 1 first, each of noise with as many numbers as a sample, then z_t. The noise of row T is
    x_T, that of row t < T is what the posterior adds on the way from t + 1 to t.
    """

    def __init__(self, denoiser: nn.Module, shape: Sequence[int], *, steps: int, latent_dim: int) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.diffusion = Diffusion(steps)
        self.shape = tuple(shape)
        self.steps, self.latent_dim = steps, latent_dim
        self.latent_size = latent_size(shape, steps, latent_dim)

    def denoise(self, noisy: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        """G(x_t, z, t): x_0', `[N, *shape]` in the dtype of x_t, of latents z `[N, latent_dim]` and int64 t `[N]`."""
        clean: Tensor = self.denoiser(noisy, latents, timesteps)
        return clean.to(noisy.dtype)

    def forward(self, latents: Tensor) -> Tensor:
        if latents.dim() != 2 or latents.shape[1] != self.latent_size:
            raise ValueError(f"latents must be [N, {self.latent_size}], got {list(latents.shape)}")
        noise, z = latents.unflatten(1, (self.steps, -1)).split([math.prod(self.shape), self.latent_dim], 2)
        noise = noise.unflatten(2, self.shape)
        x = noise[:, -1]
        for t in range(self.steps, 0, -1):
            timesteps = torch.full((x.shape[0],), t, device=x.device)
            clean = self.denoise(x, z[:, t - 1], timesteps)
            # The last step adds no noise: its row's factor is 0, and there is no row below the first.
            x = self.diffusion.posterior(clean, x, timesteps, noise[:, max(t - 2, 0)])
        return x


class Critic(nn.Module):
    """D(x_{t-1}, x_t, t): samples `[N, *shape]` twice and int64 timesteps `[N]` to raw logits `[N]`."""

    def __init__(self, critic: TimestepCritic) -> None:
        super().__init__()
        self.pairs = critic

    def forward(self, samples: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        if samples.shape != noisy.shape:
            raise ValueError(f"x_(t-1) is {list(samples.shape)} and x_t {list(noisy.shape)}: they must be of one shape")
        logits: Tensor = self.pairs(torch.cat([samples, noisy], 1), timesteps)
        return logits


class FullyConnected(nn.Module):
    """Denoiser of points, or of small images: an MLP of x_t, z and e(t)."""

    def __init__(self, shape: Sequence[int], *, latent_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = TimestepEmbedding(_TIME)
        inputs = math.prod(shape) + latent_dim + _TIME
        self.layers = mlp.Generator(shape, latent_dim=inputs, width=width, depth=depth)

    def forward(self, noisy: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        clean: Tensor = self.layers(torch.cat([noisy.flatten(1), latents, self.embedding(timesteps)], 1))
        return clean


class AdaptiveGroupNorm(nn.Module):
    """(1 + gamma(w)) group_norm(x) + beta(w), of features `[N, C, H, W]` and styles w `[N, S]`."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.groups = channels // _GROUP
        self.affine = nn.Linear(style, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gain, bias = self.affine(style)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(bias, F.group_norm(x, self.groups), 1 + gain)


class Block(nn.Module):
    """Residual block of BigGAN's kind: normalise, resample, convolve, add the time, normalise, convolve; over sqrt(2).

    `[N, before, H, W]` to `[N, after, H', W']`, H' = H, 2 H (`up`) or H / 2 (`down`).
    """

    resample_filter: Tensor

    def __init__(self, before: int, after: int, style: int, time: int, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        self.register_buffer("resample_filter", ops.setup_filter(list(_FILTER)), persistent=False)
        self.norm1 = AdaptiveGroupNorm(before, style)
        self.conv1 = Conv2d(before, after, 3, padding=1)
        self.time = nn.Linear(time, after)
        self.norm2 = AdaptiveGroupNorm(after, style)
        self.conv2 = Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        # The block begins as its skip path.
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, style: Tensor, time: Tensor) -> Tensor:
        h = self._resample(F.silu(self.norm1(x, style)))
        h = self.conv1(h) + self.time(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h, style)))
        return (self.skip(self._resample(x)) + h) * math.sqrt(0.5)

    def _resample(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return ops.upsample2d(x, self.resample_filter)
        return ops.downsample2d(x, self.resample_filter) if self.resample == "down" else x


class Stage(nn.ModuleList):
    """Blocks at one side, one after the other."""

    def forward(self, x: Tensor, style: Tensor, time: Tensor) -> Tensor:
        for block in self:
            x = block(x, style, time)
        return x


class Attention(nn.Module):
    """Self-attention over the pixels of `[N, C, H, W]`, one head, added to them; over sqrt(2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels // _GROUP, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        # One head has a dimension of its own: ONNX's attention wants four.
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, 3)
        seen = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return (x + self.out(seen)) * math.sqrt(0.5)


class UNet(nn.Module):
    """Denoiser of images `[N, C, H, H]`: NCSN++ in small, z as the styles of all normalisations, tanh at the end.

    `widths` are channels by side from H down; there are `blocks` blocks at each side on the way down and as many on the
    way up, where the way down is concatenated, and attention at the smallest side.
    """

    def __init__(self, channels: int, widths: Sequence[int], *, latent_dim: int, style: int, blocks: int) -> None:
        super().__init__()
        time = 4 * widths[0]
        self.mapping = nn.Sequential(*_linear_silu([latent_dim, style, style, style]))
        self.time = nn.Sequential(*_linear_silu([SINUSOIDS, time, time]))
        own = (style, time)
        self.from_image = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for before, after in itertools.pairwise(widths):
            self.down.append(Block(before, after, *own, resample="down"))
            self.up.append(Block(after, before, *own, resample="up"))
        self.at_down, self.at_up = nn.ModuleList(), nn.ModuleList()
        for width in widths:
            self.at_down.append(Stage(Block(width, width, *own) for _ in range(blocks)))
            joined = [2 * width, *[width] * (blocks - 1)]
            self.at_up.append(Stage(Block(before, width, *own) for before in joined))
        last = widths[-1]
        self.middle = nn.ModuleList([Block(last, last, *own), Attention(last), Block(last, last, *own)])
        self.norm = AdaptiveGroupNorm(widths[0], style)
        self.to_image = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, noisy: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        # As in StyleGAN's mapping network: latents of one length.
        style = self.mapping(latents * torch.rsqrt(latents.square().mean(1, keepdim=True) + 1e-8))
        time = self.time(sinusoids(timesteps))
        x = self.from_image(noisy)
        kept = []
        for i, stage in enumerate(self.at_down):
            x = self.down[i - 1](x, style, time) if i else x
            x = stage(x, style, time)
            kept.append(x)
        first, attention, second = self.middle
        x = second(attention(first(x, style, time)), style, time)
        for i, stage in reversed(list(enumerate(self.at_up))):
            x = stage(torch.cat([x, kept.pop()], 1), style, time)
            x = self.up[i - 1](x, style, time) if i else x
        return self.to_image(F.silu(self.norm(x, style))).tanh()


def _linear_silu(sizes: Sequence[int]) -> list[nn.Module]:
    return [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]


def latent_size(shape: Sequence[int], steps: int, latent_dim: int) -> int:
    """Of the sampler: noise like a sample and z, for each of the steps."""
    return steps * (math.prod(shape) + latent_dim)


def build(
    shape: Sequence[int] = (3, 32, 32),
    *,
    network: str = "unet",
    steps: int = 4,
    latent_dim: int = 64,
    style_dim: int = 128,
    base_channels: int = 16,
    max_channels: int = 64,
    blocks: int = 1,
    width: int = 128,
    depth: int = 3,
    timestep_channels: int = 4,
    critic_network: str = "dcgan",
    critic: dict[str, Any] | None = None,
) -> tuple[Generator, Critic]:
    """The pair, for images `[C, H, H]` or, `network="mlp"`, points `[D]` too.

    `critic` are the settings of a `critic_network` of `gan_fast.models`. ValueError for sizes they cannot have.
    """
    numbers = {"steps": steps, "latent_dim": latent_dim, "style_dim": style_dim, "blocks": blocks}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}")
    denoiser: nn.Module
    if network == "mlp":
        denoiser = FullyConnected(shape, latent_dim=latent_dim, width=width, depth=depth)
    else:
        widths = widths_for(shape[-1], base_channels, max_channels)
        denoiser = UNet(shape[0], widths, latent_dim=latent_dim, style=style_dim, blocks=blocks)
    pairs = build_critic(critic_network, timestep_channels=timestep_channels, sides=2, **(critic or {}))
    return Generator(denoiser, shape, steps=steps, latent_dim=latent_dim), Critic(pairs)


def widths_for(resolution: int, base_channels: int, max_channels: int) -> list[int]:
    """Channels by side from the image's down to 4 pixels: `base_channels`, doubled at each halving up to the most."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of two from 8, got {resolution}")
    widths = [min(base_channels << i, max_channels) for i in range(resolution.bit_length() - 2)]
    if any(width % _GROUP for width in widths):
        raise ValueError(f"base_channels and max_channels must be multiples of {_GROUP}, got widths {widths}")
    return widths
