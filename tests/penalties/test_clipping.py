"""Weight clipping: bounds, what is left alone, and errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_fast.penalties import clip_weights_


def test_clips_parameters_and_nothing_else(device):
    critic = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Linear(5, 1)).to(device)
    critic[2].weight.requires_grad_(False)
    with torch.no_grad():
        for p in critic.parameters():
            p.normal_()
        critic[1].running_mean.fill_(3.0)
    expected = [p.detach().cpu().apply_(lambda w: min(max(w, -0.3), 0.3)) for p in critic.parameters()]
    tensors = list(critic.parameters())
    assert clip_weights_(critic, 0.3) is None
    for p, same, value in zip(critic.parameters(), tensors, expected, strict=True):
        assert p is same and torch.equal(p.detach().cpu(), value)
    assert not critic[2].weight.requires_grad and critic[0].weight.requires_grad
    assert bool((critic[1].running_mean == 3).all())


def test_several_dtypes_and_devices(device):
    critic = nn.ParameterList(
        [
            nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.float64)),
            nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.bfloat16, device=device)),
            nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.float16)),
            nn.Parameter(torch.arange(-4, 5), requires_grad=False),
        ]
    )
    clip_weights_(critic, 0.01)
    for p in (p.detach() for p in list(critic)[:3]):
        assert float(p.max()) == float(torch.tensor(0.01, dtype=p.dtype)) == -float(p.min())
        assert p[4] == 0
    assert torch.equal(critic[3], torch.arange(-4, 5))


def test_parametrized_weights_are_clipped_at_their_originals():
    layer = spectral_norm(nn.Linear(6, 4))
    clip_weights_(layer, 0.01)
    assert layer.parametrizations.weight.original.abs().max() <= 0.01 < layer.weight.abs().max()


@pytest.mark.parametrize("bound", [0.0, -0.01, float("nan"), float("inf")])
def test_bound_must_be_positive(bound):
    critic = nn.Linear(2, 1)
    before = critic.weight.clone()
    with pytest.raises(ValueError, match="positive"):
        clip_weights_(critic, bound)
    assert torch.equal(before, critic.weight)


def test_nothing_to_clip():
    with pytest.raises(ValueError, match="without floating-point parameters"):
        clip_weights_(nn.ReLU(), 0.01)
