"""A run that goes wrong says so once, with evidence; a healthy one says nothing."""

from __future__ import annotations

import json
import math

import pytest
import torch

from gan_fast import losses, recipes
from gan_fast.training import NonFiniteError, Trainer, watch
from gan_fast.training.journal import Reading, read_warnings
from gan_fast.training.techniques import LeCam
from gan_fast.training.watch import Watch, chance_loss, diversity, scale_of

QUICK = {"threads": 1, "device": "cpu", "quiet": True}


def test_diversity_counts_modes():
    """K equal modes far apart count as K, copies as one, samples without a twin as themselves."""
    centres = 100 * torch.eye(5)
    modes = centres.repeat(20, 1) + 1e-3 * torch.randn(100, 5)
    assert diversity(modes, 1.0) == pytest.approx(5, rel=1e-4)
    assert diversity(torch.ones(50, 1, 8, 8), 1.0) == pytest.approx(1)
    assert diversity(100 * torch.eye(30), 1.0) == pytest.approx(30)
    # By its formula, at distance 1 for a scale of 2: 1 / mean(1, e^-1/4, e^-1/4, 1).
    assert diversity(torch.tensor([[0.0], [1.0]]), 2.0) == pytest.approx(2 / (1 + math.exp(-0.25)))
    points = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1)) * 2
    assert scale_of(points) == pytest.approx(math.sqrt(2 * 3 * 4) / 4, rel=0.05)


def test_a_lost_diversity_is_reported_once_an_episode():
    real = torch.randn(64, 1, 8, 8)
    same = real[:1].expand(64, -1, -1, -1)

    def kinds(watching, samples, images=0, fraction=0.0):
        return [alarm.kind for alarm in watching.snapshot(images, fraction, samples, real, {})[0]]

    guard = Watch(None)
    untrained = [kinds(guard, same) for _ in range(3)]
    assert untrained == [[], [], []], "every run begins grey"
    assert kinds(guard, real.flip(0)) == []
    told = [kinds(guard, same) for _ in range(4)]
    assert told == [[], ["diversity"], [], []], "one snapshot may be an accident, the episode is told once"
    assert [kinds(guard, samples) for samples in (real, same, same)] == [[], [], ["diversity"]], "another episode"
    late = Watch(None)
    told = [kinds(late, same, images, fraction) for images, fraction in ((1e5, 0.01), (2e5, 0.2), (3e5, 0.3))]
    assert told == [[], ["diversity"], []], "or it never came"


def reading(step, critic_loss=1.0):
    return Reading(step, 100 * step, 0.0, 0.0, critic_loss, 1.0, 1.0, -1.0, 1.0, -1.0)


def test_saturation_must_last():
    guard = Watch(1.386)
    for step in range(0, 2000, 20):
        assert guard.reading(reading(step, 1.2 if step % 400 == 0 else 0.01), 0.5, 10.0) == [], "it recovered"
    assert guard.reading(reading(1980, 1.2), 0.5, 10.0) == []
    told = [guard.reading(reading(step, 0.01), 0.5, 10.0) for step in range(2000, 3000, 20)]
    assert [step for step, alarms in zip(range(2000, 3000, 20), told, strict=True) if alarms] == [2500]
    (alarm,) = told[25]
    assert alarm.kind == "saturation" and "the critic wins" in alarm.message
    assert alarm.figures["critic_loss"] == 0.01 and alarm.figures["fake_sign_mean"] == -1.0
    guard = Watch(None)  # Wasserstein: no level of guessing
    told = [guard.reading(reading(step, -5.0), 1e-9, 10.0) for step in range(0, 1000, 20)]
    assert sum(map(len, told)) == 1 and "stands still" in told[25][0].message


def test_weights_that_grow_are_reported_by_name():
    guard = Watch(None)
    norms = [{"critic": norm, "generator": 1.0} for norm in (1.0, 19.0, 21.0, 30.0)]
    told = [guard.snapshot(0, 0.0, torch.zeros(1, 2), None, of_each)[0] for of_each in norms]
    assert [len(alarms) for alarms in told] == [0, 0, 1, 0] and told[2][0].kind == "growth of the critic"


def test_the_level_of_guessing_is_the_losss_own():
    class Step:
        loss = losses.NonSaturatingLoss()

    assert chance_loss(Step()) == pytest.approx(2 * math.log(2))
    Step.loss = LeCam(losses.RelativisticLoss(), 1.0, 0.9, torch.device("cpu"))
    assert chance_loss(Step()) == pytest.approx(math.log(2))
    Step.loss = None
    assert chance_loss(Step()) is None
    assert Watch(0.0).chance is None


def warnings_of(run):
    return [json.loads(line) for line in (run / "warnings.jsonl").read_text().splitlines()]


SMALL = {**QUICK, "data": "digits", "network": "mlp", "width": 16, "batch": 32}


@pytest.fixture
def impatient(monkeypatch):
    """Thresholds of time that a test can wait for."""
    monkeypatch.setattr(watch, "_STEPS", 60)
    monkeypatch.setattr(watch, "_IMAGES_TO_VARIETY", 1000)


def test_a_generator_that_is_thrown_away_is_reported_with_its_samples(tmp_path, capsys, impatient):
    """A learning rate of 10 saturates every pixel within a few steps: no sample differs, no gradient is left."""
    run = tmp_path / "run"
    settings = {**SMALL, "lr_g": 10.0, "ema_kimg": 0.1, "log_steps": 30, "snapshot_seconds": 1e-6}
    Trainer(recipes.get("dcgan", **settings, steps=90), out=run).fit()
    entries = {entry["kind"]: entry for entry in warnings_of(run)}
    out = capsys.readouterr().out
    assert {"diversity", "saturation"} <= entries.keys() and len(entries) == len(warnings_of(run)), "each kind once"
    assert entries["diversity"]["figures"]["diversity"] < 0.1 * entries["diversity"]["figures"]["real_diversity"]
    for entry in entries.values():
        assert (run / entry["samples"]).read_bytes().startswith(b"\x89PNG")
        assert entry["message"] in out and 0 < entry["step"] <= 90
    # A run that goes on from a checkpoint keeps what was warned of before it, and no more.
    (run / "warnings.jsonl").open("a").write(json.dumps({"step": 10**6, "kind": "diversity"}) + '\n{"step": 4')
    Trainer.resume(run, steps=91).fit()
    assert [e["kind"] for e in warnings_of(run)] == list(entries)


def test_a_critic_far_too_strong_is_reported(tmp_path, impatient):
    settings = {**SMALL, "lr_g": 1e-7, "lr_d": 1e-2, "steps": 200}
    Trainer(recipes.get("dcgan", **settings), out=tmp_path / "run").fit()
    (entry,) = warnings_of(tmp_path / "run")
    assert entry["kind"] == "saturation" and "the critic wins" in entry["message"]
    assert entry["figures"]["critic_loss"] < 0.05 * entry["figures"]["chance_loss"]


def test_values_that_go_bad_leave_their_evidence(tmp_path):
    trainer = Trainer(recipes.get("dcgan", **QUICK, data="ring8", width=8, steps=40, log_steps=5), out=tmp_path / "run")
    step = trainer.adversarial_step.train_critic
    trainer.adversarial_step.train_critic = lambda real, labels: step(real * float("nan"), labels)
    with pytest.raises(NonFiniteError):
        trainer.fit()
    (entry,) = warnings_of(tmp_path / "run")
    assert entry["kind"] == "non-finite" and entry["step"] == 5 and entry["figures"]["critic"] == "nan"


TUNED = {"batch": 256, "ema_kimg": 200.0, "lr_g": 1e-3, "lr_d": 1e-3, "gp_weight": 1.0, "beta2": 0.99}
HEALTHY = {
    "dcgan digits": ("dcgan", {"data": "digits"}),
    "wgan_gp grid25": ("wgan_gp", {"data": "grid25"}),
    "wgan_gp grid25, tuned": ("wgan_gp", {"data": "grid25", **TUNED}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HEALTHY)
def test_a_healthy_run_is_quiet(tmp_path, case):
    """With the thresholds of diversity reached: more than 100,000 images and a tenth of the run."""
    check_quiet(tmp_path / "run", case, kimg=140.0, snapshot_seconds=1.0)


def check_quiet(run, case, **budget):
    name, settings = HEALTHY[case]
    threads = torch.get_num_threads()
    trainer = Trainer(recipes.get(name, **QUICK, **settings, **budget), out=run)
    trainer.fit()
    torch.set_num_threads(threads)
    assert read_warnings(trainer.run) == []
