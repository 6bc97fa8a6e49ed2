"""The log-mel spectrogram that HiFi-GAN is conditioned on and judged by.

    S(x)    = |STFT(x)|             Hann window, x padded by (n_fft - hop)/2 on both sides by reflection: T/hop frames
    mel(x)  = log max(F S(x), 1e-5)
    F[m, f] = 2 / (u[m+2] - u[m]) max(0, min((f - u[m]) / (u[m+1] - u[m]), (u[m+2] - f) / (u[m+2] - u[m+1])))

with u equally spaced on Slaney's mel scale: linear, 3 mels per 200 Hz, up to 1,000 Hz, logarithmic above, 27 mels for a
factor of 6.4. Triangles have unit area. Sources: Kong et al., "HiFi-GAN", 2020, section 4.1; Slaney, "Auditory
Toolbox", 1998 (scale and area).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOOR = 1e-5
# The magnitude's derivative at silence must be finite.
_TINY = 1e-9
_LINEAR = 200 / 3
_KNEE = 1000.0
_LOG_STEP = math.log(6.4) / 27


class MelSettings(NamedTuple):
    """Of the front end. The paper's, at 22,050 samples per second: 1024, 256, 80 bands up to 8,000 Hz.

    rate in samples per second; fft, the window's length, and hop in samples; low and high in Hz.
    """

    rate: int = 16_000
    fft: int = 1024
    hop: int = 256
    bands: int = 80
    low: float = 0.0
    high: float = 8000.0

    def check(self) -> MelSettings:
        """Itself; ValueError where no such spectrogram exists."""
        if not 0 < self.hop <= self.fft or (self.fft - self.hop) % 2:
            raise ValueError(f"the hop must be from 1 to fft {self.fft} and leave an even rest, got hop {self.hop}")
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise ValueError(
                f"bands must lie between 0 and half the rate, {self.rate / 2:g} Hz, got {self.low:g} to {self.high:g}"
            )
        if self.bands < 1 or not bool((mel_filters(self).sum(1) > 0).all()):
            raise ValueError(
                f"{self.bands} mel bands are more than an fft of {self.fft} at {self.rate} samples per second can tell "
                "apart: some hold no frequency; use fewer bands or a longer fft"
            )
        return self


def hearing(rate: int, bands: int) -> MelSettings:
    """A front end to look at or listen with: windows of 20 to 45 ms, a quarter of that apart, up to half the rate."""
    fft = 1 << max(5, math.floor(math.log2(rate * 0.045)))
    return MelSettings(rate, fft, fft // 4, min(bands, fft // 8), 0.0, rate / 2)


def to_mel(hertz: float) -> float:
    """Slaney's scale."""
    if hertz < _KNEE:
        return hertz / _LINEAR
    return _KNEE / _LINEAR + math.log(hertz / _KNEE) / _LOG_STEP


def to_hertz(mels: Tensor) -> Tensor:
    """Its inverse."""
    above = _KNEE * torch.exp(_LOG_STEP * (mels - _KNEE / _LINEAR))
    return torch.where(mels < _KNEE / _LINEAR, mels * _LINEAR, above)


def mel_filters(settings: MelSettings) -> Tensor:
    """F, fp32 `[bands, fft/2 + 1]`."""
    ends = (to_mel(settings.low), to_mel(settings.high))
    u = to_hertz(torch.linspace(*ends, settings.bands + 2, dtype=torch.float64))
    f = torch.linspace(0, settings.rate / 2, settings.fft // 2 + 1, dtype=torch.float64)
    left, centre, right = (x[:, None] for x in (u[:-2], u[1:-1], u[2:]))
    triangles = torch.minimum((f - left) / (centre - left), (right - f) / (right - centre)).clamp_min(0)
    return (2 / (right - left) * triangles).float()


class MelSpectrogram(nn.Module):
    """Waveforms `[N, 1, T]`, T a multiple of the hop and longer than (fft - hop)/2, to log mels `[N, bands, T/hop]`.

    fp32 inside, whatever autocast says: an 8-bit mantissa would blur the quiet bands.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, settings: MelSettings) -> None:
        super().__init__()
        self.settings = settings.check()
        # Made from the settings: not part of a checkpoint.
        self.register_buffer("window", torch.hann_window(settings.fft), persistent=False)
        self.register_buffer("filters", mel_filters(settings), persistent=False)

    @property
    def padding(self) -> int:
        return (self.settings.fft - self.settings.hop) // 2

    def magnitude(self, audio: Tensor) -> Tensor:
        """S, `[N, fft/2 + 1, T/hop]`."""
        hop = self.settings.hop
        if audio.ndim != 3 or audio.shape[1] != 1 or audio.shape[2] % hop or audio.shape[2] <= self.padding:
            raise ValueError(
                f"waveforms must be [N, 1, T], T a multiple of the hop {hop} above {self.padding}, "
                f"got {list(audio.shape)}"
            )
        with torch.autocast(audio.device.type, enabled=False):
            padded = F.pad(audio.float(), (self.padding, self.padding), mode="reflect")[:, 0]
            fft = self.settings.fft
            spectrum = torch.stft(padded, fft, hop, window=self.window, center=False, return_complex=True)
            return (spectrum.real.square() + spectrum.imag.square() + _TINY).sqrt()

    def forward(self, audio: Tensor) -> Tensor:
        magnitude = self.magnitude(audio)
        with torch.autocast(audio.device.type, enabled=False):
            return torch.matmul(self.filters, magnitude).clamp_min(FLOOR).log()


def fit_to_hop(audio: Tensor, settings: MelSettings) -> Tensor:
    """A waveform `[T]` as `[1, 1, T']`, zeros added at its end until it has a whole number of frames and can be
    padded by reflection."""
    shortest = (settings.fft - settings.hop) // 2 + 1
    length = max(len(audio), shortest)
    length += -length % settings.hop
    return F.pad(audio, (0, length - len(audio)))[None, None]


def mel_l1(mel: MelSpectrogram, a: Tensor, b: Tensor) -> Tensor:
    """mean |mel(a) - mel(b)| of waveforms `[N, 1, T]`, in nepers of the bands' magnitude."""
    return (mel(a) - mel(b)).abs().mean()
