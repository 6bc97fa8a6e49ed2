"""How good generated sounds are.

Of a set with classes, such as spoken digits: a small classifier of log-mel spectrograms learns the training clips as
heard under bad conditions (noise 0 to 40 dB below them, an echo that colours them, shifted by up to 20 ms), and one
class more, "none", of noise and of training clips with random phases (their spectrum without their course in time). A
clip is recognised if the classifier's likeliest class is one of the set's and its probability is at least t, t such
that 95 % of held-out real clips are, heard under such conditions. Of random phases, which it should refuse, the share
is told too.

    recognised     share of samples that are
    evenness       entropy of the classes of recognised samples over log K, 1 for all classes alike

Of a vocoder: the mel L1 distance of its reconstructions of held-out sounds, beside those of its untrained networks and
of Griffin-Lim, and the real-time factor, seconds of computing for a second of sound.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast.data.errors import DataError
from gan_fast.data.sounds import SoundDataset
from gan_fast.models.hifigan import Generator
from gan_fast.sound.griffin_lim import griffin_lim
from gan_fast.sound.mel import MelSettings, MelSpectrogram, fit_to_hop, hearing, mel_l1

DEFAULT_SOUNDS = 1000
DEFAULT_VOCODED = 32
_KEPT = 0.95
_HEARINGS = 4
_EPOCHS, _LEAST_STEPS = 30, 150
_BATCH = 64
_SMOOTHING = 0.1  # so that probabilities do not saturate, and t tells clips apart
_LONGEST_SECONDS = 4.0
GRIFFIN_LIM_ITERATIONS = 60


class Listener(nn.Module):
    """Waveforms `[N, 1, T]` to logits `[N, classes + 1]`, "none" last."""

    def __init__(self, settings: MelSettings, classes: int, width: int = 16) -> None:
        super().__init__()
        self.mel = MelSpectrogram(settings)
        layers: list[nn.Module] = []
        for before, after in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.BatchNorm2d(after), nn.ReLU()]
        # Three looks at the course of time, all at once of frequency.
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((4, 3)), nn.Flatten(), nn.Dropout(0.2))
        self.last = nn.Linear(4 * width * 12, classes + 1)

    def forward(self, audio: Tensor) -> Tensor:
        hop, least = self.mel.settings.hop, self.mel.settings.fft
        audio = F.pad(audio, (0, max(-audio.shape[2] % hop, least - audio.shape[2])))
        # Loudness is not what makes a word.
        levels = self.mel(audio / audio.abs().amax(2, keepdim=True).clamp_min(1e-3))
        return self.last(self.layers((levels[:, None] + 5) / 4))


def random_phases(audio: Tensor, generator: torch.Generator) -> Tensor:
    """Waveforms `[N, 1, T]` with the same magnitudes of their whole spectrum and random phases."""
    spectrum = torch.fft.rfft(audio)
    turn = torch.rand(spectrum.shape, generator=generator) * 2 * math.pi
    return torch.fft.irfft(torch.polar(spectrum.abs(), turn), n=audio.shape[2])


def badly_heard(audio: Tensor, rate: int, generator: torch.Generator) -> Tensor:
    """Waveforms `[N, 1, T]` shifted together, each with an echo a few samples later and noise of its own level."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(audio), 1, 1, generator=generator)

    audio = audio.roll(int(torch.randint(-rate // 50, rate // 50 + 1, (), generator=generator)), 2)
    audio = audio + uniform(-0.7, 0.7) * audio.roll(int(torch.randint(1, 4, (), generator=generator)), 2)
    level = audio.square().mean(2, keepdim=True).sqrt() * 10 ** uniform(-2, 0)
    return audio + level * torch.randn(audio.shape, generator=generator)


@torch.enable_grad()  # whatever the caller has set
def train_listener(data: SoundDataset, progress: Callable[[str], None] | None = None) -> Listener:
    """The classifier of a set with classes: the same for the same set."""
    assert data.labels is not None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        stream = torch.Generator().manual_seed(0)
        listener = Listener(hearing(data.rate, bands=40), len(data.classes)).train()
        steps = max(_LEAST_STEPS, _EPOCHS * math.ceil(len(data) / _BATCH))
        optimizer = torch.optim.Adam(listener.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        for _ in range(steps):
            chosen = torch.randint(len(data), (_BATCH,), generator=stream)
            clean = data.float_batch(chosen, crop=torch.rand(_BATCH, generator=stream))
            audio = badly_heard(clean, data.rate, stream)
            quarter = _BATCH // 4
            noise = torch.randn(4, *audio.shape[1:], generator=stream)
            nothing = torch.cat([random_phases(audio[:quarter], stream), noise])
            labels = torch.cat([data.labels[chosen], torch.full((quarter + 4,), len(data.classes))])
            loss = F.cross_entropy(listener(torch.cat([audio, nothing])), labels, label_smoothing=_SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    if progress is not None:
        progress(f"classifier of {len(data.classes)} classes trained on {len(data)} real clips")
    return listener.eval().requires_grad_(False)


@torch.no_grad()
def listen(listener: Listener, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Of waveforms `[N, 1, T]` the likeliest class `[N]`, the number of classes for none, and its probability."""
    found = [F.softmax(listener(part), 1).max(1) for part in audio.split(256)]
    return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found])


@dataclass
class SoundReport:
    """What a classifier makes of samples; shares in 0..1.

    Attributes:
        samples, data: how many were judged against which set.
        recognised: the share that is.
        evenness: entropy of their classes over that of all classes alike.
        classes: of recognised samples, the share of each.
        accuracy: of the classifier on held-out real clips.
        threshold: t.
        real, random_phases: the shares recognised of held-out real clips, as they are, and of training clips with
            random phases.
    """

    samples: int
    data: str
    recognised: float
    evenness: float
    classes: dict[str, float]
    accuracy: float
    threshold: float
    real: float
    random_phases: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        rarest = min(self.classes, key=lambda name: self.classes[name])
        return [
            f"{self.samples:,} samples against {self.data}",
            f"  recognised   {self.recognised:.1%} as one of {len(self.classes)} classes, at a probability of "
            f"{self.threshold:.3f} or more",
            f"  classes      evenness {self.evenness:.3f}, the rarest {rarest} with {self.classes[rarest]:.1%}",
            f"  real         {self.real:.1%} recognised, {self.accuracy:.1%} of held-out clips classified right",
            f"  random phase {self.random_phases:.1%} recognised of clips with real spectra and random phases",
        ]


def evaluate_sounds(samples: Tensor, data: SoundDataset, progress: Callable[[str], None] | None = None) -> SoundReport:
    """Judge waveforms `[N, 1, T]` against a set with classes and held-out clips; DataError without them."""
    if data.labels is None or data.held_out is None:
        raise DataError(
            f"{data.name} has no classes and held-out clips to judge samples by: put the sounds of each class in a "
            "folder of their own, at least 50 files in all, or train with --evaluation-samples 0"
        )
    listener = train_listener(data, progress)
    held_out = data.held_out
    assert held_out.labels is not None
    real = held_out.float_batch(torch.arange(len(held_out)))
    none, stream = len(data.classes), torch.Generator().manual_seed(2)
    heard = torch.cat([badly_heard(real, data.rate, stream) for _ in range(_HEARINGS)])
    classes, probabilities = listen(listener, heard)
    threshold = float(probabilities.masked_fill(classes == none, 0).quantile(1 - _KEPT))

    def recognised(audio: Tensor) -> tuple[float, Tensor]:
        classes, probabilities = listen(listener, audio)
        yes = (classes < none) & (probabilities >= threshold)
        return float(yes.float().mean()), classes[yes]

    real_share, _ = recognised(real)
    share, classes = recognised(samples)
    spread = torch.bincount(classes, minlength=none).double()
    shares = spread / spread.sum().clamp_min(1)
    entropy = float(-(shares[shares > 0] * shares[shares > 0].log()).sum())
    first = data.float_batch(torch.arange(min(len(data), 500)))
    return SoundReport(
        samples=len(samples),
        data=data.name,
        recognised=share,
        evenness=entropy / math.log(none),
        classes=dict(zip(data.classes, shares.tolist(), strict=True)),
        accuracy=float((listen(listener, real)[0] == held_out.labels).float().mean()),
        threshold=threshold,
        real=real_share,
        random_phases=recognised(random_phases(first, torch.Generator().manual_seed(1)))[0],
    )


@dataclass
class VocoderReport:
    """Mel L1 distances of reconstructions of held-out sounds, and seconds of computing for a second of sound."""

    sounds: int
    seconds: float
    data: str
    mel_l1: float
    untrained_mel_l1: float
    griffin_lim_mel_l1: float
    real_time_factor: float
    griffin_lim_real_time_factor: float
    device: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.sounds} held-out sounds of {self.data}, {self.seconds:.1f} seconds",
            f"  mel L1       {self.mel_l1:.3f}, untrained {self.untrained_mel_l1:.3f}, Griffin-Lim "
            f"({GRIFFIN_LIM_ITERATIONS} iterations) {self.griffin_lim_mel_l1:.3f}",
            f"  real time    {self.real_time_factor:.3f} seconds of computing for each of sound, Griffin-Lim "
            f"{self.griffin_lim_real_time_factor:.3f}, on {self.device}",
        ]


@torch.no_grad()
def evaluate_vocoder(
    generator: Generator, untrained: Generator, data: SoundDataset, count: int = DEFAULT_VOCODED
) -> VocoderReport:
    """Judge a vocoder on up to `count` held-out sounds, of each at most the first four seconds."""
    if data.held_out is None:
        raise DataError(
            f"{data.name} holds no sounds out to judge by: put some in a folder named test and the others in one named "
            "train, or give at least 50 files"
        )
    device = generator.mel.window.device
    mel = generator.mel
    order = torch.linspace(0, len(data.held_out) - 1, min(count, len(data.held_out))).round().long().tolist()
    sounds = list(data.held_out.sounds())
    errors: dict[str, list[float]] = {"made": [], "untrained": [], "griffin_lim": []}
    spent = {"made": 0.0, "untrained": 0.0, "griffin_lim": 0.0}
    seconds = 0.0
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "made": generator,
        "untrained": untrained.to(device),
        "griffin_lim": lambda spectrogram: griffin_lim(spectrogram, mel, GRIFFIN_LIM_ITERATIONS),
    }
    generator(mel(fit_to_hop(sounds[0], mel.settings).to(device)))  # the first call of a network is not its speed
    for index in order:
        audio = fit_to_hop(sounds[index][: int(_LONGEST_SECONDS * data.rate)], mel.settings).to(device)
        seconds += audio.shape[2] / data.rate
        spectrogram = mel(audio)
        for name, way in ways.items():
            began = time.perf_counter()
            made = way(spectrogram).float().cpu()
            spent[name] += time.perf_counter() - began
            errors[name].append(float(mel_l1(mel, audio, made.to(device))))
    mean = {name: sum(values) / len(values) for name, values in errors.items()}
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return VocoderReport(
        sounds=len(order),
        seconds=seconds,
        data=data.name,
        mel_l1=mean["made"],
        untrained_mel_l1=mean["untrained"],
        griffin_lim_mel_l1=mean["griffin_lim"],
        real_time_factor=spent["made"] / seconds,
        griffin_lim_real_time_factor=spent["griffin_lim"] / seconds,
        device=f"{device}{threads}",
    )
