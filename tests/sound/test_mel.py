"""The mel front end against its formula, librosa's figures and a discrete Fourier transform by hand; Griffin-Lim."""

from __future__ import annotations

import math

import pytest
import torch

from gan_fast.sound import MelSettings, MelSpectrogram, griffin_lim, mel_filters, mel_l1
from sound.clips import chirp, tone

LIBROSA = (
    (0, 2, 0.0226513892),
    (20, 36, 0.0219296310),
    (40, 80, 0.0148954699),
    (60, 172, 0.00663741305),
    (79, 358, 0.003265993),
)
LIBROSA_SUM = 3.7136884
SMALL = MelSettings(rate=8000, fft=256, hop=64, bands=32, low=0.0, high=4000.0)


def test_filters_are_librosas():
    """Band, its highest bin and that bin's weight, and the sum of all weights, by librosa 0.11's
    `filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)`."""
    filters = mel_filters(MelSettings(22_050, 1024, 256, 80, 0.0, 8000.0))
    for band, where, weight in LIBROSA:
        assert int(filters[band].argmax()) == where
        assert float(filters[band].max()) == pytest.approx(weight, rel=1e-5)
    assert float(filters.sum()) == pytest.approx(LIBROSA_SUM, rel=1e-5)


def test_a_frame_is_the_transform_of_what_it_covers():
    audio = torch.randn(2, 1, 1024, dtype=torch.float64).float() * 0.1
    mel = MelSpectrogram(SMALL)
    got = mel(audio)
    assert got.shape == (2, 32, 16)
    frame = 7  # far from both ends: no padding in it
    start = frame * SMALL.hop - mel.padding
    piece = audio[:, 0, start : start + SMALL.fft].double()
    n = torch.arange(SMALL.fft, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / SMALL.fft)
    f = torch.arange(SMALL.fft // 2 + 1, dtype=torch.float64)[:, None]
    waves = torch.polar(torch.ones(1, dtype=torch.float64), -2 * math.pi * f * n / SMALL.fft)
    magnitude = ((piece * window)[:, None] * waves).sum(2).abs()
    expected = (magnitude @ mel.filters.double().T).clamp_min(1e-5).log()
    torch.testing.assert_close(got[:, :, frame].double(), expected, atol=1e-4, rtol=1e-4)


def test_silence_a_tone_and_gradients():
    mel = MelSpectrogram(SMALL)
    silence = torch.zeros(1, 1, 512, requires_grad=True)
    levels = mel(silence)
    assert levels.max() < math.log(1e-3) and levels.min() >= math.log(1e-5) - 1e-6
    (gradient,) = torch.autograd.grad(levels.sum(), silence)
    assert gradient.isfinite().all()
    loud = mel(tone(1000, 2048, 8000)[None, None])[0].mean(1)
    weights = mel.filters[loud.argmax()]
    assert abs(int(weights.argmax()) * 8000 / 256 - 1000) < 8000 / 256
    audio = chirp(100, 3000, 2048, 8000)[None, None]
    expected = mel(audio)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mel(audio), expected), "fp32 whatever autocast says"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"high": 4001.0}, "half the rate"),
        ({"bands": 400}, "some hold no frequency"),
        ({"hop": 300}, "the hop must be"),
        ({"hop": 63}, "an even rest"),
    ],
)
def test_impossible_front_ends(change, message):
    with pytest.raises(ValueError, match=message):
        MelSpectrogram(SMALL._replace(**change))
    with pytest.raises(ValueError, match=r"\[N, 1, T\]"):
        MelSpectrogram(SMALL)(torch.zeros(1, 1, 100))


def test_griffin_lim_finds_the_sound_again():
    mel = MelSpectrogram(SMALL)
    # Noise: what is silent cannot be matched, and would be most of a tone's error.
    audio = 0.1 * torch.randn(2, 1, 4096)
    target = mel(audio)
    errors = [float(mel_l1(mel, audio, griffin_lim(target, mel, k))) for k in (0, 5, 60)]
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.2 * errors[0]
    assert torch.equal(griffin_lim(target, mel, 3), griffin_lim(target, mel, 3)), "the phases come from its seed"
