"""R3GAN: its schedules, its plan, and a training on stacked digits held to a figure."""

from __future__ import annotations

import pytest
import torch

from gan_fast import data, recipes
from gan_fast.metrics.stacked import evaluate_stacked
from gan_fast.training import Trainer


@pytest.fixture(autouse=True)
def threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_schedules_are_half_cosines_and_reach_the_step():
    recipe = recipes.get("r3gan", burn_in_kimg=1.0, ema_kimg=8.0, batch=50)
    assert recipe.at(0) == {"lr": 2e-3, "gamma": 10.0, "beta2": 0.9, "ema_kimg": 0.0}
    ends = {"lr": 1e-4, "gamma": 2.0, "beta2": 0.99, "ema_kimg": 8.0}
    assert recipe.at(1000) == pytest.approx(ends) and recipe.at(10**9) == pytest.approx(ends)
    assert recipe.at(500) == pytest.approx({"lr": 1.05e-3, "gamma": 6.0, "beta2": 0.945, "ema_kimg": 4.0})
    trainer = Trainer(recipe, data=data.load("ring8"))
    for _ in range(11):
        trainer.step(trainer.feed.next())
    now = recipe.at(500)
    for optimizer in trainer.optimizers:
        assert [(g["lr"], g["betas"]) for g in optimizer.param_groups] == [(now["lr"], (0.0, now["beta2"]))]
    assert trainer.adversarial_step.penalties[:2] == (now["gamma"], now["gamma"])
    assert trainer.ema.half_life == 1000 * now["ema_kimg"]


def test_the_critic_takes_the_shared_plan():
    settings = {"base_channels": 8, "max_channels": 8, "group_size": 8, "batch": 8, "precision": "fp32"}
    trainer = Trainer(recipes.get("r3gan", device="cpu", threads=1, **settings), data=data.load("stacked-digits"))
    stats = trainer.step(trainer.feed.next())
    assert stats.critic.plan == "shared" and stats.critic.r1 is not None and stats.critic.r2 is not None


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"beta2": 1.0}, "beta2 must be in"), ({"gamma": -1.0}, "gamma must be 0"), ({"blocks": 0}, "blocks must be")],
)
def test_impossible_settings_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        recipes.get("r3gan", **settings)


def test_residual_networks_refuse_points():
    with pytest.raises(ValueError, match="network r3gan is for images"):
        Trainer(recipes.get("r3gan", network="r3gan"), data=data.load("ring8"))


@pytest.mark.slow
def test_a_thousand_modes_grow_even():
    """KL of the modes of 4,000 samples to uniform after 64 kimg: 0.79 and 0.86 over two seeds, of the Gaussian of the
    pixels 1.08; the bound is 1.0.

    Broken, same measure: without R1 and R2 1.20, with both at 0.05 1.05, a critic that is never updated 6.5, the sign
    of the generator's loss flipped 6.9.
    """
    stacked = data.load("stacked-digits")
    small = {"network": "mlp", "burn_in_kimg": 64.0, "ema_kimg": 5.0, "device": "cpu", "threads": 1}
    trainer = Trainer(recipes.get("r3gan", **small), data=stacked)
    while trainer.images < 64_000:
        trainer.step(trainer.feed.next())
    report = evaluate_stacked(trainer.sample(4000), stacked)
    assert report.figures.kl < 1.0, "\n".join(report.lines())
    assert report.figures.caught > 600
