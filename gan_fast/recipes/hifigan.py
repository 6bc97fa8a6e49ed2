"""HiFi-GAN: speech from log-mel spectrograms, judged by critics of many periods and scales.

    D minimises  sum_k E (D_k(x) - 1)^2 + E D_k(G(s))^2
    G minimises  sum_k E (D_k(G(s)) - 1)^2 + 2 L_FM + 45 L_mel
    L_FM  = sum over critics and layers of mean |D_k^l(x) - D_k^l(G(s))|,      L_mel = mean |mel(x) - mel(G(s))|

with s = mel(x) of a random clip x of real speech. Both learn at every step, by AdamW with a learning rate that falls by
the factor `lr_decay` every `decay_kimg`.

Source: Kong, Kim and Bae, "HiFi-GAN", NeurIPS 2020. Its V1 is `--rate 22050 --generator-channels 512 --strides 8 8 2 2
--kernels 3 7 11 --dilations 1 3 5 --critic-channels 32 --batch 16`; V2 has 128 generator channels. The defaults have
V1's critics and generator at sizes that two cores can train. The paper keeps no average of the generator.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import nn

from gan_fast import losses
from gan_fast.models.hifigan import Generator
from gan_fast.recipes.hifigan_step import HiFiGANStep
from gan_fast.recipes.sound import SoundRecipe
from gan_fast.training.ema import EMA
from gan_fast.training.recipe import Budget, Preview
from gan_fast.training.step import Players, Step

_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class HiFiGAN(SoundRecipe):
    """HiFi-GAN (Kong et al. 2020): mel spectrogram to waveform, multi-period and multi-scale critics."""

    name: ClassVar[str] = "hifigan"
    default_budget: ClassVar[Budget] = Budget(images=1_000_000, seconds=3600)

    batch: int = 8
    """Clips per step, over all processes; the paper has 16."""

    fft: int = 1024
    """Samples of the spectrogram's window. Its hop is the product of the strides."""

    mels: int = 80
    """Mel bands."""

    low: float = 0.0
    """Lowest frequency of the mel bands, in Hz."""

    high: float = 8000.0
    """Highest frequency of the mel bands, in Hz; at most half the rate."""

    generator_channels: int = 64
    """Channels of the generator's first layer, halved at each stride."""

    strides: tuple[int, ...] = (8, 8, 4)
    """Upsampling factors of the generator."""

    kernels: tuple[int, ...] = (3, 7)
    """Kernel sizes fused at each stage."""

    dilations: tuple[int, ...] = (1, 3)
    """Dilations of each residual block."""

    critic_channels: int = 4
    """Channels of the multi-period critic's first layer; the widths of all critics follow. The paper's 32."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Of the multi-period critic."""

    scales: int = 3
    """Of the multi-scale critic: the waveform, and pooled by 2, 4, ..."""

    feature_weight: float = 2.0
    """Weight of feature matching."""

    mel_weight: float = 45.0
    """Weight of the mel spectrogram's L1 distance."""

    lr: float = 2e-4
    """AdamW's learning rate for both networks."""

    beta1: float = 0.8
    """AdamW's decay of the mean gradient."""

    beta2: float = 0.99
    """AdamW's decay of the squared gradient."""

    weight_decay: float = 0.01
    """AdamW's."""

    lr_decay: float = 0.999
    """The learning rate's factor..."""

    # An epoch of LJSpeech, after which the paper's falls.
    decay_kimg: float = 13.1
    """...for every so many thousand clips."""

    ema_kimg: float = 0.5
    """Half-life of the averaged generator, in thousand clips."""

    def __post_init__(self) -> None:
        # From JSON they come as lists.
        for name in ("strides", "kernels", "dilations", "periods"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        if self.lr_decay > 1:
            raise ValueError(f"lr_decay must be at most 1, got {self.lr_decay!r}")
        hop = math.prod(self.strides)
        if self.length % hop or self.length <= (self.fft - hop) // 2:
            raise ValueError(
                f"length must be a multiple of the strides' product, {hop}, above {(self.fft - hop) // 2}, "
                f"got {self.length}"
            )

    @classmethod
    def decay_fields(cls) -> tuple[str, ...]:
        return (*super().decay_fields(), "beta1", "beta2")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        sizes = ("fft", "mels", "high", "generator_channels", "critic_channels", "lr", "lr_decay", "decay_kimg")
        return (*super().positive_fields(), *sizes)

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "low", "scales", "feature_weight", "mel_weight", "weight_decay")

    def latent_size(self, shape: tuple[int, ...]) -> int:
        """None: the generator is given a spectrogram."""
        return 0

    def generator_period(self) -> int:
        return 1

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        lists = {name: list(getattr(self, name)) for name in ("strides", "kernels", "dilations", "periods")}
        mel = {"rate": self.rate, "fft": self.fft, "bands": self.mels, "low": self.low, "high": self.high}
        sizes = {"channels": self.generator_channels, "critic_channels": self.critic_channels, "scales": self.scales}
        return "hifigan", {**mel, **sizes, **lists}

    def loss_function(self) -> losses.AdversarialLoss:
        return losses.LeastSquaresLoss()

    def step(self, players: Players) -> Step:
        return HiFiGANStep(players, feature_weight=self.feature_weight, mel_weight=self.mel_weight)

    def optimizers(
        self, generator: nn.Module, critic: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        def adamw(network: nn.Module) -> torch.optim.Optimizer:
            parameters = list(network.parameters())
            capturable = parameters[0].device.type == "cuda"
            betas, decay = (self.beta1, self.beta2), self.weight_decay
            return torch.optim.AdamW(parameters, self.lr, betas, weight_decay=decay, fused=True, capturable=capturable)

        return adamw(generator), adamw(critic)

    def follow(
        self,
        images: int,
        step: Step,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        average: EMA,
    ) -> None:
        lr = self.lr * self.lr_decay ** (images // (1000 * self.decay_kimg))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr

    def preview(self, average: nn.Module, data: Any, shape: tuple[int, ...]) -> Preview:
        """Clips of held-out speech made from their spectrograms, and the clips themselves."""
        assert isinstance(average, Generator)
        source = getattr(data, "held_out", None) or data
        indices = torch.arange(min(_SHOWN, len(source)))
        if not hasattr(source, "float_batch"):
            return Preview(torch.zeros(0, 1, self.length))
        real = source.float_batch(indices, crop=torch.full((len(indices),), 0.5))
        with torch.no_grad():
            made = average(average.mel(real.to(average.mel.window.device)))
        return Preview(made.float().cpu(), real)
