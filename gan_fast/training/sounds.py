"""Sounds for people: wav files, and a picture of their spectrograms. All replace their file atomically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.sound.mel import FLOOR, MelSpectrogram, hearing
from gan_fast.sound.wav import encode_wav
from gan_fast.training.checkpoint import write_file
from gan_fast.training.pictures import save_grid

# Log mels from silence to what a loud vowel reaches are drawn from black to white.
_LOUD = 2.0
# How many of a snapshot's samples are written as wav files.
_HEARD = 8


def spectrograms(audio: Tensor, rate: int) -> Tensor:
    """Pictures `[N, 1, bands, frames]` in [-1, 1] of waveforms `[N, 1, T]`, low frequencies below."""
    settings = hearing(rate, bands=64)
    audio = F.pad(audio, (0, max(-audio.shape[2] % settings.hop, settings.fft - audio.shape[2])))
    levels = MelSpectrogram(settings)(audio.float())
    silent = torch.tensor(FLOOR).log()
    return ((levels - silent) / (_LOUD - silent)).clamp(0, 1).mul(2).sub(1).flip(1)[:, None]


def save_spectrograms(path: Path, audio: Tensor, rate: int, real: Tensor | None = None) -> Tensor:
    """Write the picture of waveforms `[N, 1, T]`; with as many real ones, each stands above its own. Returns the
    pictures `[N, 1, H, W]`."""
    made = spectrograms(audio, rate)
    if real is None:
        save_grid(path, made)
        return made
    both = torch.cat([spectrograms(real, rate), made])
    save_grid(path, both, columns=len(made))
    return both


def save_wavs(out: Path, audio: Tensor, rate: int, names: Sequence[str]) -> list[Path]:
    """Write waveforms `[N, 1, T]` as NAME.wav in the folder `out`; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.wav" for name in names]
    for path, samples in zip(paths, audio[:, 0], strict=True):
        write_file(path, encode_wav(samples, rate))
    return paths


def save_each(out: Path, audio: Tensor, rate: int, seeds: Sequence[int]) -> list[Path]:
    """Write each waveform as seedNNNNNN.wav, and spectrograms.png of all; returns the paths of the wav files."""
    paths = save_wavs(out, audio, rate, [f"seed{seed:06d}" for seed in seeds])
    save_spectrograms(out / "spectrograms.png", audio, rate)
    return paths


def snapshot(picture: Path, audio: Tensor, rate: int, real: Tensor | None) -> Tensor:
    """A run's samples.png, and beside it samples/0.wav, 1.wav, ... and for reconstructions 0-real.wav, ...; returns
    the pictures."""
    folder = picture.with_suffix("")
    save_wavs(folder, audio[:_HEARD], rate, [str(k) for k in range(len(audio[:_HEARD]))])
    if real is not None:
        save_wavs(folder, real[:_HEARD], rate, [f"{k}-real" for k in range(len(real[:_HEARD]))])
    return save_spectrograms(picture, audio, rate, real)
