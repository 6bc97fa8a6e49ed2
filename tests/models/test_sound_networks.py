"""WaveGAN's and HiFi-GAN's networks against their papers: sizes, phase shuffle, periods, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gan_fast import models
from gan_fast.models.hifigan import PeriodCritic
from gan_fast.models.wavegan import layers_for, phase_shuffle


def millions(network):
    return round(sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6, 2)


def test_wavegan_has_the_papers_tables():
    """Appendix D, tables 3 and 4, d = 64: channels and lengths of every layer of a second of sound."""
    generator, critic = models.build("wavegan", seed=0)
    shapes = []
    for layer in [*generator.layers, *critic.layers]:
        layer.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        audio = generator(torch.zeros(1, 100))
        logits = critic(audio)
    assert shapes[:5] == [(512, 64), (256, 256), (128, 1024), (64, 4096), (1, 16384)]
    assert shapes[5:] == [(64, 4096), (128, 1024), (256, 256), (512, 64), (1024, 16)]
    assert audio.shape == (1, 1, 16384) and logits.shape == (1,) and generator.first.out_features == 16 * 1024
    assert [layers_for(n) for n in (4096, 8192, 65536)] == [(4, 16), (4, 32), (6, 16)]


@pytest.mark.parametrize("length", [101, 16, 12_001, 4100])
def test_wavegan_refuses_other_lengths(length):
    with pytest.raises(ValueError, match=f"got length {length}: use "):
        models.build("wavegan", length=length)


def test_phase_shuffle_moves_each_sample_and_reflects():
    x = torch.randn(5, 3, 9, dtype=torch.float64, requires_grad=True)
    shifts = torch.arange(-2, 3)
    got = phase_shuffle(x, shifts)
    for row, shift in enumerate(shifts.tolist()):
        padded = np.pad(x[row].detach().numpy(), ((0, 0), (max(shift, 0), max(-shift, 0))), mode="reflect")
        expected = padded[:, max(-shift, 0) :][:, :9]
        assert np.array_equal(got[row].detach().numpy(), expected)
    assert torch.autograd.gradgradcheck(lambda x: phase_shuffle(x, shifts).square(), x)


def test_wavegans_critic_is_moved_by_shifts_alone():
    _, critic = models.build("wavegan", seed=0, length=1024, base_channels=4)
    audio = torch.randn(6, 1, 1024)
    still = critic(audio)
    shifts = torch.zeros(6, critic.shuffles, dtype=torch.int64)
    assert critic.shuffles == 2 and torch.equal(critic(audio, shifts), still)
    shifts[2, 1] = 2
    assert (critic(audio, shifts) != still).tolist() == [False, False, True, False, False, False]


def test_levels_of_a_sine_are_its_loudness():
    """A sine of amplitude a in the middle of a bin is a Hann peak of a/2, a, a/2; each band hears its share of it."""
    _, critic = models.build("wavegan", seed=0, length=4096, rate=8000, base_channels=4, critic="spectrogram")
    assert critic.shape == (40, 64) and critic(torch.zeros(2, 40, 64)).shape == (2,)
    for bin, amplitude in ((16, 1.0), (80, 0.01)):
        sine = amplitude * torch.sin(2 * torch.pi * bin / 256 * torch.arange(4096, dtype=torch.float64)).float()
        levels = critic.levels(sine[None, None])[0, :, 5:-5]
        filters = critic.mel.filters.numpy()
        peak = filters[:, bin] + (filters[:, bin - 1] + filters[:, bin + 1]) / 2
        expected = np.log(1 + 50 * amplitude * peak / filters.sum(1)) / 2
        np.testing.assert_allclose(levels.numpy(), np.broadcast_to(expected[:, None], levels.shape), atol=1e-3)
        assert levels.max() > 0.05


def test_hifigan_has_the_papers_parameters():
    """Table 1: 13.92 and 0.92 million (V1, V2), counted after weight norm is folded in."""
    for channels, published in ((512, 13.92), (128, 0.92)):
        generator, _ = models.build("hifigan", seed=0, channels=channels, critic_channels=1, periods=[2], scales=0)
        folded = sum(m.weight.numel() + m.bias.numel() for m in generator.modules() if hasattr(m, "parametrizations"))
        assert folded / 1e6 == pytest.approx(published, abs=0.01)
    with torch.no_grad():
        assert generator(torch.zeros(2, 80, 3)).shape == (2, 1, 3 * 256)


def test_a_period_critic_hears_one_phase_in_each_column():
    critic = PeriodCritic(3, 2)
    audio = torch.randn(1, 1, 300, requires_grad=True)
    logits, features = critic(audio)
    assert logits.shape == (1, 6) and len(features) == 6
    columns = logits.view(-1, 3)
    (gradient,) = torch.autograd.grad(columns[:, 1].sum(), audio)
    assert [bool(gradient[0, 0, phase::3].any()) for phase in range(3)] == [False, True, False]


def test_hifigans_critics():
    """Five periods and three scales; widths of the paper, in proportion."""
    _, critic = models.build("hifigan", seed=0, channels=16, kernels=[3], dilations=[1], critic_channels=32)
    assert millions(critic) == pytest.approx(70.7, abs=0.1)
    small = models.build("hifigan", seed=0, channels=16, kernels=[3], dilations=[1], critic_channels=2)[1]
    logits, features = small(torch.randn(2, 1, 1001))
    assert len(logits) == 8 and len(features) == 5 * 6 + 3 * 8 and all(x.ndim == 2 and len(x) == 2 for x in logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 20}, "multiple of 16, got 20"),
        ({"kernels": [4]}, "kernels must be odd"),
        ({"dilations": []}, "dilations must be"),
        ({"strides": [8, 0]}, "strides must be positive"),
        ({"periods": [2, 2]}, "periods must be different"),
        ({"periods": [], "scales": 0}, "needs a critic"),
        ({"high": 12_000.0}, "half the rate"),
    ],
)
def test_hifigan_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        models.build("hifigan", **{"channels": 16, "critic_channels": 1, **change})
