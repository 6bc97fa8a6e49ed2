"""A waveform from its log-mel spectrogram without learning: Griffin-Lim.

    S    = max(0, pinv(F) exp(mel))                       magnitudes from the bands, least squares
    x_k  = ISTFT(S e^(i p_k)),   p_{k+1} = arg STFT(x_k)     p_0 uniform

ISTFT is the least-squares one: overlap-add of the windowed inverse transforms over the sum of squared windows. Source:
Griffin and Lim, "Signal Estimation from Modified Short-Time Fourier Transform", 1984.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.sound.mel import MelSpectrogram


def griffin_lim(log_mel: Tensor, mel: MelSpectrogram, iterations: int = 60, seed: int = 0) -> Tensor:
    """Waveforms `[N, 1, T]` in [-1, 1] from log mels `[N, bands, T/hop]`."""
    fft, hop = mel.settings.fft, mel.settings.hop
    magnitude = torch.matmul(torch.linalg.pinv(mel.filters), log_mel.float().exp()).clamp_min(0)
    phase = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(seed)).to(magnitude.device)
    spectrum = torch.polar(magnitude, 2 * math.pi * phase)
    for _ in range(iterations):
        audio = _overlap_add(spectrum, mel.window, hop)
        again = torch.stft(audio, fft, hop, window=mel.window, center=False, return_complex=True)
        spectrum = torch.polar(magnitude, again.angle())
    audio = _overlap_add(spectrum, mel.window, hop)
    # The front end's padding was part of what the frames saw.
    return audio[:, mel.padding : audio.shape[1] - mel.padding][:, None].clamp(-1, 1)


def _overlap_add(spectrum: Tensor, window: Tensor, hop: int) -> Tensor:
    """`[N, fft/2 + 1, frames]` to `[N, fft + hop (frames - 1)]`."""
    frames = torch.fft.irfft(spectrum, n=len(window), dim=1) * window[:, None]
    length = len(window) + hop * (frames.shape[2] - 1)

    def add(pieces: Tensor) -> Tensor:
        return F.fold(pieces, (1, length), (1, len(window)), stride=(1, hop))[:, 0, 0]

    weight = add(window.square()[None, :, None].expand(1, -1, frames.shape[2]))
    # Both ends of a Hann window are 0: nothing is known there.
    return add(frames) / weight.clamp_min(1e-6)
