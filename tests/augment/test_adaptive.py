"""ADA's controller: p moves by images / speed towards the target, within [0, 1], every few steps."""

from __future__ import annotations

import pytest
import torch

from gan_fast.augment import ADA, AdaptiveProbability


def test_p_follows_the_sign_of_real_logits():
    augment = ADA("blit")
    control = AdaptiveProbability(augment.p, target=0.6, kimg=10, interval=4)
    moved = []
    # Four steps each of r = 0.8, 0.4 and the mean of 0 and 1, weighted by how many images there were: 0.75.
    for step, (r, count) in enumerate([(0.8, 8)] * 4 + [(0.4, 8)] * 4 + [(0.0, 4), (1.0, 12)] * 2, 1):
        control.update(torch.tensor(r), count, step)
        moved.append(float(augment.p))
    up = 32 / 10_000
    assert moved == pytest.approx([0, 0, 0, up, up, up, up, 0, 0, 0, 0, up])
    assert float(control.r) == pytest.approx(0.75)


@pytest.mark.parametrize(("start", "r", "end"), [(0.999, 1.0, 1.0), (0.001, -1.0, 0.0), (0.5, 0.6, 0.5)])
def test_p_stays_a_probability(start, r, end):
    p = torch.tensor(start)
    control = AdaptiveProbability(p, target=0.6, kimg=0.1, interval=1)
    control.update(torch.tensor(r), 64, 1)
    assert float(p) == pytest.approx(end)


def test_refusals():
    for settings in ({"kimg": 0}, {"interval": 0}):
        with pytest.raises(ValueError, match="expected a positive number and at least 1"):
            AdaptiveProbability(torch.zeros(()), **settings)
