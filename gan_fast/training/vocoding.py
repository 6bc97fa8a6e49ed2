"""A trained vocoder: waveform -> log-mel spectrogram -> waveform."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gan_fast.models.hifigan import Generator
from gan_fast.sound.griffin_lim import griffin_lim
from gan_fast.sound.mel import fit_to_hop
from gan_fast.training.checkpoint import CheckpointError
from gan_fast.training.sampling import Sampler


class Vocoder:
    """The averaged generator of a run of `hifigan`.

    Attributes:
        rate: samples per second of what it takes and gives.
    """

    def __init__(self, run: Path, device: torch.device | str = "cpu") -> None:
        """`run` is a run folder or a checkpoint; CheckpointError where it cannot be used."""
        sampler = Sampler(run, device)
        if not isinstance(sampler.generator, Generator):
            raise CheckpointError(f"{sampler.folder} holds no vocoder: it was trained by another recipe than hifigan")
        self.source, self.generator = sampler.folder, sampler.generator
        self.device = torch.device(device)
        self.rate = self.generator.rate

    @torch.no_grad()
    def vocode(self, audio: Tensor) -> Tensor:
        """fp32 `[T]` on the CPU, of a waveform `[T]` at `rate`."""
        mel = self.generator.mel
        spectrogram = mel(fit_to_hop(audio, mel.settings).to(self.device))
        made: Tensor = self.generator(spectrogram)
        return made[0, 0, : len(audio)].float().cpu()

    def griffin_lim(self, audio: Tensor, iterations: int = 60) -> Tensor:
        """The same without the network, for comparison."""
        mel = self.generator.mel
        spectrogram = mel(fit_to_hop(audio, mel.settings).to(self.device))
        return griffin_lim(spectrogram, mel, iterations)[0, 0, : len(audio)].cpu()
