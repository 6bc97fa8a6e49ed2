"""Whole trainings on toy data with the settings of docs/training.md: every mode is found, and samples lie on them."""

from __future__ import annotations

import pytest
import torch

from gan_fast import data, recipes
from gan_fast.metrics import evaluate_points
from gan_fast.training import Trainer

COMMON = {"batch": 256, "ema_kimg": 200.0, "threads": 1, "device": "cpu"}
FAST = {"lr_g": 1e-3, "lr_d": 1e-3}
GRADIENT_PENALTY = {**FAST, "gp_weight": 1.0, "beta2": 0.99}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "name", "settings", "steps", "modes", "high_quality"),
    [
        ("wgan", "ring8", {"clip": 0.1, "lr_g": 5e-4, "lr_d": 5e-4}, 12_000, 8, 0.2),
        ("wgan_gp", "ring8", GRADIENT_PENALTY, 8_000, 8, 0.3),
        ("wgan_gp", "grid25", GRADIENT_PENALTY, 25_000, 24, 0.2),
        ("dcgan", "grid25", {**FAST, "loss": "relativistic", "r1": 0.1, "r2": 0.1, "beta1": 0.0}, 16_000, 25, 0.65),
    ],
    ids=["ring8 wgan", "ring8 wgan_gp", "grid25 wgan_gp", "grid25 relativistic R1 R2"],
)
def test_modes_are_covered(recipe, name, settings, steps, modes, high_quality):
    dataset = data.load(name)
    threads = torch.get_num_threads()
    trainer = Trainer(recipes.get(recipe, **COMMON, **settings), data=dataset)
    for _ in range(steps):
        trainer.step(trainer.feed.next())
    torch.set_num_threads(threads)
    report = evaluate_points(trainer.sample(10_000), dataset)
    assert report.figures.caught >= modes and report.figures.high_quality >= high_quality, "\n".join(report.lines())
    assert report.noise.caught < modes
