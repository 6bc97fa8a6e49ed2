"""DCGAN networks: G: z [N, latent_dim] -> images [N, C, R, R] in [-1, 1];  D: images -> logits [N].

    G = tanh o up^k o relu(norm(deconv4x4(z)))      R = 4 * 2^k
    D = conv4x4 o (leaky_relu(norm(conv down)))^k

Every step down halves the side and doubles the width, every step up does the reverse; there is no
pooling and no hidden fully connected layer. Source: Radford, Metz and Chintala, "Unsupervised
Representation Learning with Deep Convolutional Generative Adversarial Networks", ICLR 2016 (section 3
and figure 1). Spectral normalisation of the critic: Miyato et al., ICLR 2018.

Two things the paper leaves out: `extra_layers` adds 3x3 convolutions at each side, without which an
8x8 network is two layers deep; and any power-of-two side from 8 is allowed, where the paper has 64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_fast.models.batch import BatchLayers, check_packing
from gan_fast.models.convolution import Conv2d

CRITIC_NORMS = ("batch", "none", "spectral")
GENERATOR_NORMS = ("batch", "none")

# The side of the smallest feature map: the paper projects z to 4x4 and the critic ends on 4x4.
SMALLEST_SIDE = 4
# Section 3 and 4 of the paper: slope of the critic's leaky ReLU, spread of the initial weights.
LEAK = 0.2
INIT_STD = 0.02


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def layer_widths(resolution: int, base_channels: int, max_channels: int) -> list[int]:
    """Channels at each side from the largest feature map (`resolution / 2`) down to 4: base, 2 base, ... capped."""
    if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 2 * SMALLEST_SIDE:
        raise ValueError(f"resolution must be a power of two from {2 * SMALLEST_SIDE}, got {resolution!r}")
    if resolution & (resolution - 1):
        nearest = 1 << (resolution.bit_length() - 1)
        raise ValueError(
            f"resolution must be a power of two from {2 * SMALLEST_SIDE}, got {resolution}; "
            f"use {nearest} or {2 * nearest}, images are resized to it"
        )
    _check_positive(base_channels=base_channels, max_channels=max_channels)
    steps = (resolution // SMALLEST_SIDE).bit_length() - 1
    return [min(base_channels << step, max_channels) for step in range(steps)]


def _generator_block(conv: nn.Module, width: int, norm: str) -> list[nn.Module]:
    normalised: list[nn.Module] = [nn.BatchNorm2d(width)] if norm == "batch" else []
    return [conv, *normalised, nn.ReLU(inplace=True)]


class Generator(nn.Module):
    """Latents [N, latent_dim] to images [N, channels, resolution, resolution] in [-1, 1]."""

    def __init__(
        self,
        resolution: int = 64,
        channels: int = 3,
        *,
        latent_dim: int = 100,
        base_channels: int = 64,
        max_channels: int = 512,
        extra_layers: int = 0,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        widths = layer_widths(resolution, base_channels, max_channels)[::-1]
        _check_positive(channels=channels, latent_dim=latent_dim)
        _check_choice("generator_norm", norm, GENERATOR_NORMS)
        _check_extra(extra_layers)
        self.latent_dim = latent_dim
        # A bias in front of batch normalisation is subtracted again: it would only cost memory.
        bias = norm == "none"
        layers = _generator_block(nn.ConvTranspose2d(latent_dim, widths[0], SMALLEST_SIDE, bias=bias), widths[0], norm)
        for step, width in enumerate(widths):
            for _ in range(extra_layers):
                layers += _generator_block(Conv2d(width, width, 3, padding=1, bias=bias), width, norm)
            if step + 1 < len(widths):
                up = nn.ConvTranspose2d(width, widths[step + 1], 4, stride=2, padding=1, bias=bias)
                layers += _generator_block(up, widths[step + 1], norm)
        last = widths[-1]
        if extra_layers:
            layers += _generator_block(nn.ConvTranspose2d(last, last, 4, 2, 1, bias=bias), last, norm)
            for _ in range(extra_layers - 1):
                layers += _generator_block(Conv2d(last, last, 3, padding=1, bias=bias), last, norm)
            layers.append(nn.Conv2d(last, channels, 3, padding=1))
        else:
            layers.append(nn.ConvTranspose2d(last, channels, 4, stride=2, padding=1))
        self.layers = nn.Sequential(*layers, nn.Tanh())
        _initialise(self)

    def forward(self, latents: Tensor) -> Tensor:
        if latents.dim() != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents must be [N, {self.latent_dim}], got {list(latents.shape)}")
        return self.layers(latents[:, :, None, None])


class Critic(nn.Module):
    """Images [N, channels, resolution, resolution] to raw logits [N]."""

    def __init__(
        self,
        resolution: int = 64,
        channels: int = 3,
        *,
        base_channels: int = 64,
        max_channels: int = 512,
        extra_layers: int = 0,
        norm: str = "batch",
        batch: BatchLayers = BatchLayers(),  # noqa: B008 (a NamedTuple of numbers)
    ) -> None:
        super().__init__()
        widths = layer_widths(resolution, base_channels, max_channels)
        _check_positive(channels=channels)
        _check_choice("critic_norm", norm, CRITIC_NORMS)
        _check_extra(extra_layers)
        self.image_shape = (channels, resolution, resolution)

        layers: list[nn.Module] = []
        previous = channels

        def add(width: int, kernel: int, stride: int, normalised: bool = True) -> None:
            nonlocal previous
            batch_norm = norm == "batch" and normalised
            conv = nn.Conv2d(previous, width, kernel, stride, padding=1, bias=not batch_norm)
            layers.append(spectral_norm(conv) if norm == "spectral" else conv)
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.LeakyReLU(LEAK, inplace=True))
            previous = width

        if extra_layers:
            add(widths[0], 3, 1, normalised=False)
        for step, width in enumerate(widths):
            # The first layer sees the pixels as they are (section 3 of the paper).
            add(width, 4, 2, normalised=step > 0 or extra_layers > 0)
            for _ in range(extra_layers):
                add(width, 3, 1)
        seen, features = batch.make(previous, SMALLEST_SIDE**2)
        layers += seen
        logit = nn.Linear(features, 1) if batch.flattens else nn.Conv2d(features, 1, SMALLEST_SIDE)
        layers.append(spectral_norm(logit) if norm == "spectral" else logit)
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    @property
    def logit_layer(self) -> nn.Module:
        """The layer that makes features into logits."""
        return self.layers[-1]

    def forward(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images must be [N, {', '.join(map(str, self.image_shape))}], got {list(images.shape)}")
        return self.layers(images).flatten()


def _check_extra(extra_layers: int) -> None:
    if isinstance(extra_layers, bool) or not isinstance(extra_layers, int) or extra_layers < 0:
        raise ValueError(f"extra_layers must be 0 or a positive whole number, got {extra_layers!r}")


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    """Weights N(0, 0.02), batch-normalisation gains N(1, 0.02), biases 0 (section 4 of the paper)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            # A spectrally normalised weight is computed: its parameter is `original`.
            spectral = getattr(module, "parametrizations", None)
            nn.init.normal_(spectral["weight"].original if spectral is not None else module.weight, 0.0, INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, INIT_STD)
            nn.init.zeros_(module.bias)


def build(
    resolution: int = 64,
    channels: int = 3,
    *,
    latent_dim: int = 100,
    base_channels: int = 64,
    max_channels: int = 512,
    extra_layers: int = 0,
    critic_norm: str = "batch",
    generator_norm: str = "batch",
    packing: int = 1,
    minibatch_stddev: int = 0,
    minibatch_discrimination: int = 0,
) -> tuple[Generator, Critic]:
    """The pair, with the paper's 64x64 networks as defaults.

    The critic scores `packing` images at once, `[N, packing * channels, R, R]`, and may look at its batch
    (`BatchLayers`).
    """
    shared = {"base_channels": base_channels, "max_channels": max_channels, "extra_layers": extra_layers}
    generator = Generator(resolution, channels, latent_dim=latent_dim, norm=generator_norm, **shared)
    check_packing(packing)
    batch = BatchLayers(minibatch_stddev, minibatch_discrimination)
    critic = Critic(resolution, channels * packing, norm=critic_norm, batch=batch, **shared)
    return generator, critic
