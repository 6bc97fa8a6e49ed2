"""WaveGAN's networks: DCGAN in one dimension, with long filters and stride 4.

    G   z [N, latent_dim] -> relu(linear) [N, w_1, s] -> (relu(deconv25, stride 4))^(k-1) -> tanh(deconv25, stride 4)
    D   x [N, 1, T] -> (shuffle(leaky_relu(conv25, stride 4)))^k -> linear -> logits [N]     no shuffle after the last

T = s 4^k with s from 16 to 63: the paper's 16,384 samples are 16 4^5. Widths of D are base, 2 base, 4 base, ...; those
of G the same in reverse.

Phase shuffle moves all channels of a sample by r samples, r uniform in -n..n and its own for each sample and layer,
and fills the gap by reflection: y[t] = x[reflect(t - r)]. It keeps D from judging by where in the stride's period a
wave begins, which transposed convolutions give away. D takes the r as an argument, so that who trains decides where
they come from; without them nothing is moved.

Source: Donahue, McAuley and Puckette, "Adversarial Audio Synthesis", ICLR 2019, sections 3.1 to 3.3 and appendix D.

Not the paper's is a critic of spectrograms, which does not ask G for a phase:

    L(x)  = log(1 + 50 m(x)) / 2        m: 4/fft |STFT(x)|, averaged with each mel filter's weights as shares
    D'    L [N, bands, frames] -> (leaky_relu(linear))^depth -> linear -> logits [N]

4/fft makes a sine of amplitude 1 a peak of 1; bands 34 dB below are a level of log(2) / 2. The paper's SpecGAN has
spectrograms on both sides, with a G that makes them; critics of spectrograms behind a G of waveforms are those of Jang
et al., "UnivNet", Interspeech 2021, convolutional there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast.models import mlp
from gan_fast.models.patch import check_positive
from gan_fast.sound.mel import MelSpectrogram, hearing

KERNEL, STRIDE, LEAK = 25, 4, 0.2
_LEAST, _MOST = 16, 64
_LOUDNESS = 50.0


def layers_for(length: int) -> tuple[int, int]:
    """(k, s) with length = s 4^k and s in 16..63; ValueError where there are none."""
    layers, start = 0, length
    while start >= _MOST and start % STRIDE == 0:
        layers, start = layers + 1, start // STRIDE
    if not layers or not _LEAST <= start < _MOST:
        below = _LEAST * STRIDE
        while below * STRIDE <= length:
            below *= STRIDE
        raise ValueError(
            f"wavegan makes clips of 16 to 63 times a power of 4 samples, such as 8192 and 16384, got length {length}: "
            f"use {below}, {2 * below} or {4 * below}"
        )
    return layers, start


def phase_shuffle(x: Tensor, shifts: Tensor) -> Tensor:
    """`[N, C, T]` with row i moved by `shifts[i]` samples to the right (left if negative), filled by reflection."""
    last = x.shape[2] - 1
    where = (torch.arange(last + 1, device=x.device) - shifts[:, None]).abs()
    where = last - (last - where).abs()
    return x.gather(2, where[:, None].expand(-1, x.shape[1], -1))


class Generator(nn.Module):
    """Latents `[N, latent_dim]` to waveforms `[N, 1, length]` in [-1, 1], `rate` samples per second."""

    def __init__(self, length: int, rate: int, *, latent_dim: int, base_channels: int) -> None:
        super().__init__()
        layers, self.start = layers_for(length)
        self.latent_dim, self.rate = latent_dim, rate
        widths = [base_channels << k for k in range(layers)][::-1]
        self.first = nn.Linear(latent_dim, widths[0] * self.start)
        self.layers = nn.ModuleList(
            nn.ConvTranspose1d(before, after, KERNEL, STRIDE, padding=11, output_padding=1)
            for before, after in zip(widths, [*widths[1:], 1], strict=True)
        )
        _initialise(self)

    def forward(self, latents: Tensor) -> Tensor:
        if latents.dim() != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents must be [N, {self.latent_dim}], got {list(latents.shape)}")
        x = self.first(latents).view(latents.shape[0], -1, self.start)
        for layer in self.layers:
            x = layer(F.relu(x))
        return torch.tanh(x)


class Critic(nn.Module):
    """Waveforms `[N, 1, length]` to raw logits `[N]`."""

    def __init__(self, length: int, *, base_channels: int, shuffle: int) -> None:
        super().__init__()
        layers, start = layers_for(length)
        if start <= shuffle:
            raise ValueError(f"the phase shuffle must be below {start}, the shortest layer, got {shuffle}")
        self.length, self.shuffle = length, shuffle
        widths = [base_channels << k for k in range(layers)]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, KERNEL, STRIDE, padding=11)
            for before, after in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.last = nn.Linear(widths[-1] * start, 1)
        _initialise(self)

    @property
    def shuffles(self) -> int:
        """How many shifts a sample takes: a layer each, but the last."""
        return len(self.layers) - 1 if self.shuffle else 0

    def forward(self, audio: Tensor, shifts: Tensor | None = None) -> Tensor:
        """`shifts`: whole numbers `[N, shuffles]` in -shuffle..shuffle, or None for no shuffle."""
        if audio.dim() != 3 or tuple(audio.shape[1:]) != (1, self.length):
            raise ValueError(f"waveforms must be [N, 1, {self.length}], got {list(audio.shape)}")
        x = audio
        for k, layer in enumerate(self.layers):
            x = F.leaky_relu(layer(x), LEAK)
            if shifts is not None and k < self.shuffles:
                x = phase_shuffle(x, shifts[:, k])
        return self.last(x.flatten(1)).flatten()


class SpectrogramCritic(mlp.Critic):
    """Levels `[N, bands, frames]`, which `levels` makes of waveforms, to raw logits `[N]`."""

    def __init__(self, length: int, rate: int, *, mels: int, width: int, depth: int) -> None:
        # More bands than an fft tells apart are refused, not made fewer.
        settings = hearing(rate, mels)._replace(bands=mels)
        if length % settings.hop or length <= (settings.fft - settings.hop) // 2:
            raise ValueError(
                f"at {rate} samples per second a critic of spectrograms hears clips of a multiple of {settings.hop} "
                f"samples above {(settings.fft - settings.hop) // 2}, got length {length}: use another length or "
                "critic waveform"
            )
        super().__init__((settings.bands, length // settings.hop), width=width, depth=depth)
        self.mel = MelSpectrogram(settings)

    def levels(self, audio: Tensor) -> Tensor:
        """L of waveforms `[N, 1, length]`, in fp32; differentiable twice."""
        magnitude = self.mel.magnitude(audio) * (4 / self.mel.settings.fft)
        shares = self.mel.filters / self.mel.filters.sum(1, keepdim=True)
        with torch.autocast(audio.device.type, enabled=False):
            return torch.log1p(_LOUDNESS * torch.matmul(shares, magnitude)) / 2


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    """Glorot's uniform weights and zero biases, as the authors' code has them."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def build(
    length: int = 16_384,
    rate: int = 16_000,
    *,
    latent_dim: int = 100,
    base_channels: int = 64,
    shuffle: int = 2,
    critic: str = "waveform",
    mels: int = 40,
    width: int = 256,
    depth: int = 2,
) -> tuple[Generator, Critic | SpectrogramCritic]:
    """The pair, with the paper's networks for a second of sound as defaults.

    shuffle is for a critic "waveform"; mels, width and depth for a critic "spectrogram", which is called on
    `critic.levels(waveforms)`.
    """
    counts = {"latent_dim": latent_dim, "base_channels": base_channels, "rate": rate}
    check_positive(**counts, mels=mels, width=width, depth=depth)
    if not isinstance(shuffle, int) or shuffle < 0:
        raise ValueError(f"shuffle must be 0 or a positive whole number, got {shuffle!r}")
    if critic not in ("waveform", "spectrogram"):
        raise ValueError(f"critic must be 'waveform' or 'spectrogram', got {critic!r}")
    generator = Generator(length, rate, latent_dim=latent_dim, base_channels=base_channels)
    if critic == "spectrogram":
        return generator, SpectrogramCritic(length, rate, mels=mels, width=width, depth=depth)
    return generator, Critic(length, base_channels=base_channels, shuffle=shuffle)
