"""HiFi-GAN's networks: a generator from log-mel spectrograms to waveforms, and two families of critics.

    G     conv7 -> for each stride u: leaky_relu, deconv of kernel 2u and stride u, fuse -> leaky_relu, conv7, tanh
    fuse  mean over kernels k of a residual block of k: for each dilation d,
          x + conv_{k,1}(leaky_relu(conv_{k,d}(leaky_relu(x))))                       multi-receptive-field fusion
    MPD   period p: x [N, 1, T] folded to [N, 1, T/p, p], 2-D convolutions of kernel (5, 1): each column of its own
    MSD   scale s: the waveform pooled s times by 2, grouped 1-D convolutions of kernels up to 41

Widths halve at each stride. The slope of every leaky ReLU is 0.1, of the generator's last 0.01. Weight norm throughout
(torch's parametrization), spectral norm for the critic of the unpooled waveform.

Source: Kong, Kim and Bae, "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech
Synthesis", NeurIPS 2020, section 2 and appendix A. Its critics have 32 to 1,024 (MPD) and 128 to 1,024 (MSD) channels;
`critic_channels` is the 32, and all others follow in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from gan_fast.sound.mel import MelSettings, MelSpectrogram

SLOPE = 0.1
_LAST_SLOPE = 0.01
INIT_STD = 0.01
# In units of the MPD's first width.
_PERIOD_WIDTHS = (1, 4, 16, 32, 32)
# Width, kernel, stride and groups of the MSD's layers; widths in the same units.
_SCALE_LAYERS = (
    (4, 15, 1, 1),
    (4, 41, 2, 4),
    (8, 41, 2, 16),
    (16, 41, 4, 16),
    (32, 41, 4, 16),
    (32, 41, 1, 16),
    (32, 5, 1, 1),
)
Scores = tuple[list[Tensor], list[Tensor]]


class ResidualBlock(nn.Module):
    """One kernel of the fusion: `[N, C, T]` to the same shape."""

    def __init__(self, width: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def convolution(dilation: int) -> nn.Module:
            return _normed(nn.Conv1d(width, width, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2))

        self.dilated = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.plain = nn.ModuleList(convolution(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class Fusion(nn.Module):
    """The mean of residual blocks of several kernels: `[N, C, T]` to the same shape."""

    def __init__(self, width: int, kernels: Sequence[int], dilations: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, kernel, dilations) for kernel in kernels)

    def forward(self, x: Tensor) -> Tensor:
        total = self.blocks[0](x)
        for block in list(self.blocks)[1:]:
            total = total + block(x)
        return total / len(self.blocks)


class Generator(nn.Module):
    """Log mels `[N, bands, frames]` to waveforms `[N, 1, frames * hop]` in [-1, 1]; the hop is the product of strides.

    `mel`, the front end of these mels, is part of it: weights and settings belong together.
    """

    def __init__(
        self, mel: MelSettings, channels: int, strides: Sequence[int], kernels: Sequence[int], dilations: Sequence[int]
    ) -> None:
        super().__init__()
        if math.prod(strides) != mel.hop:
            raise ValueError(f"the strides' product must be the hop {mel.hop}, got {list(strides)}")
        if channels < 1 or channels % (1 << len(strides)):
            raise ValueError(
                f"generator_channels halve at each of the {len(strides)} strides: "
                f"give a multiple of {1 << len(strides)}, got {channels}"
            )
        if not kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"kernels must be odd and positive, got {list(kernels)}")
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations must be 1 or greater, got {list(dilations)}")
        self.mel = MelSpectrogram(mel)
        self.rate = mel.rate
        self.first = _normed(nn.Conv1d(mel.bands, channels, 7, padding=3), initialise=False)
        self.ups, self.fusions = nn.ModuleList(), nn.ModuleList()
        width = channels
        for stride in strides:
            # Kernel 2u, and for odd strides one more, so that the padding is the same at both ends.
            kernel = 2 * stride + stride % 2
            up = nn.ConvTranspose1d(width, width // 2, kernel, stride, padding=(kernel - stride) // 2)
            width //= 2
            self.ups.append(_normed(up))
            self.fusions.append(Fusion(width, kernels, dilations))
        self.last = _normed(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, log_mel: Tensor) -> Tensor:
        if log_mel.dim() != 3 or log_mel.shape[1] != self.mel.settings.bands:
            raise ValueError(f"log mels must be [N, {self.mel.settings.bands}, frames], got {list(log_mel.shape)}")
        x = self.first(log_mel)
        for up, fuse in zip(self.ups, self.fusions, strict=True):
            x = fuse(up(F.leaky_relu(x, SLOPE)))
        return torch.tanh(self.last(F.leaky_relu(x, _LAST_SLOPE)))


class PeriodCritic(nn.Module):
    """Waveforms `[N, 1, T]` to logits `[N, L]` and the features of every layer."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [channels * w for w in _PERIOD_WIDTHS]
        strides = [3, 3, 3, 3, 1]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0)))
            for before, after, stride in zip([1, *widths[:-1]], widths, strides, strict=True)
        )
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = F.pad(audio, (0, -audio.shape[2] % self.period), mode="reflect")
        return _walk(self, x.view(len(x), 1, -1, self.period))


class ScaleCritic(nn.Module):
    """The same on the waveform as it is; who pools it is `Critic`."""

    def __init__(self, channels: int, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        layers, before = [], 1
        for units, kernel, stride, groups in _SCALE_LAYERS:
            width = channels * units
            # Narrow critics have fewer groups, but never wider ones than the paper's.
            groups = math.gcd(groups, math.gcd(before, width))
            layers.append(norm(nn.Conv1d(before, width, kernel, stride, padding=kernel // 2, groups=groups)))
            before = width
        self.layers = nn.ModuleList(layers)
        self.last = norm(nn.Conv1d(before, 1, 3, padding=1))

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        return _walk(self, audio)


def _walk(critic: PeriodCritic | ScaleCritic, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    features = []
    for layer in critic.layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    x = critic.last(x)
    features.append(x)
    return x.flatten(1), features


class Critic(nn.Module):
    """Waveforms `[N, 1, T]` to (logits, features): a list of logits `[N, L]`, periods first, and of all features."""

    def __init__(self, channels: int, periods: Sequence[int], scales: int) -> None:
        super().__init__()
        if not periods and not scales:
            raise ValueError("hifigan needs a critic: give periods or scales")
        if len(set(periods)) != len(periods) or min(periods, default=1) < 1:
            raise ValueError(f"periods must be different and positive, got {list(periods)}")
        self.periods = nn.ModuleList(PeriodCritic(period, channels) for period in periods)
        self.scales = nn.ModuleList(
            ScaleCritic(channels, weight_norm if scale else spectral_norm) for scale in range(scales)
        )

    def forward(self, audio: Tensor) -> Scores:
        logits, features = [], []
        pooled = audio
        for k, critic in enumerate([*self.periods, *self.scales]):
            scale = k - len(self.periods)
            if scale > 0:
                pooled = F.avg_pool1d(pooled, 4, 2, padding=2)
            own, layers = critic(pooled)
            logits.append(own)
            features += layers
        return logits, features


def _normed(layer: nn.Conv1d | nn.ConvTranspose1d, initialise: bool = True) -> nn.Module:
    """Weights N(0, 0.01), as the authors' code begins, then weight norm."""
    if initialise:
        nn.init.normal_(layer.weight, 0.0, INIT_STD)
    return weight_norm(layer)


def build(
    rate: int = 22_050,
    fft: int = 1024,
    bands: int = 80,
    low: float = 0.0,
    high: float = 8000.0,
    *,
    channels: int = 512,
    strides: Sequence[int] = (8, 8, 2, 2),
    kernels: Sequence[int] = (3, 7, 11),
    dilations: Sequence[int] = (1, 3, 5),
    critic_channels: int = 32,
    periods: Sequence[int] = (2, 3, 5, 7, 11),
    scales: int = 3,
) -> tuple[Generator, Critic]:
    """The pair, with the paper's V1 as defaults."""
    if not strides or min(strides) < 1:
        raise ValueError(f"strides must be positive, got {list(strides)}")
    mel = MelSettings(rate, fft, math.prod(strides), bands, low, high)
    if critic_channels < 1 or scales < 0:
        raise ValueError(f"critic_channels must be 1 or more and scales 0 or more, got {critic_channels} and {scales}")
    return Generator(mel, channels, strides, kernels, dilations), Critic(critic_channels, periods, scales)
