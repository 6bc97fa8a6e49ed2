"""Trainer: what a step changes, resuming bit for bit, stopping, and that it learns."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from gan_fast.training import NonFiniteError, Trainer, checkpoint
from support.reading_back import NothingReadBack


def everything(trainer):
    """All state that training moves, by name."""
    found = {}
    for name, module in (("G", trainer.generator), ("D", trainer.critic), ("ema", trainer.ema.module)):
        found |= {f"{name}.{k}": v.clone() for k, v in module.state_dict().items()}
    for name, optimizer in zip(("G", "D"), trainer.optimizers, strict=True):
        found |= {f"adam {name}.{k}": v.clone() for k, v in checkpoint.optimizer_tensors(optimizer).items()}
    found["latents"] = trainer.latents.stream.get_state()
    return found


def different(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def train(trainer, steps):
    for _ in range(steps):
        trainer.step(trainer.feed.next())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"precision": "bf16", "channels_last": True, "loss": "relativistic", "flip": True},
        {"critic_norm": "batch", "critic_steps": 3, "channels_last": False},
    ],
    ids=["fp32", "bf16 relativistic", "batch norm, three critic steps"],
)
def test_resume_is_bit_for_bit(small, digits, tmp_path, settings):
    straight = Trainer(small(**settings), data=digits)
    train(straight, 20)

    first = Trainer(small(**settings), data=digits)
    train(first, 10)
    first.sample(5)  # what is drawn to be looked at must not move the run
    first.save(tmp_path / "half")
    torch.manual_seed(99)  # nothing may depend on torch's global generator
    second = Trainer.resume(tmp_path / "half", data=digits)
    assert different(everything(first), everything(second)) == []
    train(second, 10)

    assert different(everything(straight), everything(second)) == []
    assert (second.steps, second.images) == (20, 320)
    assert second.feed.state_dict() == straight.feed.state_dict()


def test_fit_resumes_bit_for_bit(small, tmp_path):
    whole = Trainer(small(steps=12), out=tmp_path / "whole")
    whole.fit()
    Trainer(small(steps=5), out=tmp_path / "parts").fit()
    parts = Trainer.resume(tmp_path / "parts", steps=12)
    assert parts.steps == 5
    result = parts.fit()
    assert result.reason == "finished" and result.step == 12
    assert different(everything(whole), everything(parts)) == []


def test_a_step_changes_what_it_should(small, digits):
    trainer = Trainer(small(critic_steps=2, critic_norm="none", generator_norm="none"), data=digits)
    before = everything(trainer)
    stats = trainer.step(trainer.feed.next())
    after_critic = everything(trainer)
    changed = different(after_critic, {**after_critic, **before})
    assert changed and all(name.startswith("D.") or name == "latents" for name in changed), changed
    assert all(name in changed for name in before if name.startswith("D."))

    trainer.step(trainer.feed.next())
    after_both = everything(trainer)
    changed = different({k: after_both[k] for k in before}, before)
    assert all(name in changed for name in before if not name.startswith("adam")), "every weight moves"
    assert all(p.requires_grad for p in trainer.critic.parameters())
    for value in (*stats.critic[:5], stats.generator_loss):
        assert value.shape == () and not value.requires_grad


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "relativistic_average", "critic_norm": "batch", "precision": "bf16"},
        {"instance_noise": 0.1, "packing": 2, "lecam": 0.1, "bcr": 1.0, "zcr_critic": 1.0, "top_k": 0.5},
        {"unrolled_steps": 1, "feature_matching": 1.0, "zcr_generator": 1.0, "minibatch_stddev": 4},
    ],
    ids=["plain", "batch norm", "techniques", "unrolled"],
)
def test_a_step_reads_nothing_back(small, digits, settings):
    trainer = Trainer(small(**settings), data=digits)
    batches = [trainer.feed.next() for _ in range(3)]
    with NothingReadBack():
        for batch in batches:
            stats = trainer.step(batch)
        with pytest.raises(AssertionError, match="waits for the device"):
            float(stats.generator_loss)


@pytest.mark.parametrize("loss", ["non_saturating", "relativistic"])
def test_each_player_lowers_its_own_loss(small, digits, loss):
    """Repeated against an opponent that stands still, on one batch."""
    trainer = Trainer(small(loss=loss, lr_g=2e-3, lr_d=2e-3), data=digits)
    step, real = trainer.adversarial_step, trainer.feed.next()
    critic_losses = [float(step.train_critic(real).loss) for _ in range(30)]
    assert critic_losses[-1] < 0.8 * critic_losses[0]
    generator_losses = [float(step.train_generator(real)) for _ in range(30)]
    assert generator_losses[-1] < 0.8 * generator_losses[0]


def test_average_follows_its_formula(small, digits):
    trainer = Trainer(small(ema_kimg=0.1, ema_ramp=0.5), data=digits)
    name = "layers.0.weight"
    expected = trainer.generator.state_dict()[name].double()
    for step in range(1, 20):
        trainer.step(trainer.feed.next())
        half_life = min(100, 0.5 * 16 * step)
        expected += (1 - 0.5 ** (16 / half_life)) * (trainer.generator.state_dict()[name].double() - expected)
    torch.testing.assert_close(trainer.ema.module.state_dict()[name].double(), expected, rtol=1e-5, atol=1e-7)
    running = trainer.ema.module.layers[1].running_var
    assert not torch.equal(running, torch.ones_like(running)), "running statistics are averaged too"


def test_step_takes_bytes_tuples_and_floats_alike(small, digits):
    pixels = digits.images[:16]
    results = []
    for batch in (pixels, (pixels, digits.labels[:16]), {"image": pixels}, pixels.float() / 127.5 - 1):
        trainer = Trainer(small(), data=digits)
        trainer.step(batch)
        results.append(trainer.generator.state_dict()["layers.0.weight"])
    assert all(torch.equal(results[0], other) for other in results[1:])
    with pytest.raises(ValueError, match=r"\[N, C, H, W\], or sounds, \[N, 1, T\], got \[16, 8, 8\]"):
        trainer.step(pixels[:, 0])


def test_trains_on_loaders_and_other_data_sets(small, digits, tmp_path):
    pairs = torch.utils.data.TensorDataset(digits.images[:40], digits.labels[:40])
    Trainer(small(steps=4), data=pairs, out=tmp_path / "a").fit()
    resumed = Trainer.resume(tmp_path / "a", data=pairs, steps=6)
    assert resumed.feed.sampler.state_dict()["offset"] == 4 * 16 % 40
    loader = torch.utils.data.DataLoader(pairs, batch_size=16, drop_last=True)
    assert Trainer(small(steps=4), data=loader, out=tmp_path / "b").fit().step == 4
    with pytest.raises(ValueError, match="fed by a data set"):
        Trainer.resume(tmp_path / "a", data=loader)
    with pytest.raises(ValueError, match="resolution 16 but the data given has 8"):
        Trainer(small(resolution=16), data=digits)


def test_other_images_are_refused_on_resume(small, digits, tmp_path):
    trainer = Trainer(small(), data=digits)
    trainer.save(tmp_path / "c")
    with pytest.raises(ValueError, match="fingerprint differs"):
        Trainer.resume(tmp_path / "c", data=digits.held_out)


def test_non_finite_losses_stop_and_keep_the_last_good_checkpoint(small, tmp_path):
    trainer = Trainer(small(steps=1000, log_steps=5, snapshot_seconds=1e-6), out=tmp_path / "run")
    step = trainer.adversarial_step.train_critic

    def poisoned(real, labels):
        return step(real * float("nan") if trainer.steps == 13 else real, labels)

    trainer.adversarial_step.train_critic = poisoned
    with pytest.raises(NonFiniteError, match=r"critic's loss is nan at step 15.*gan-fast resume.*lower learning rates"):
        trainer.fit()
    again = Trainer.resume(tmp_path / "run")
    assert again.steps == 10
    assert all(value.isfinite().all() for value in again.generator.state_dict().values())


def test_non_finite_weights_are_never_saved(small, tmp_path):
    trainer = Trainer(small(steps=6), out=tmp_path / "run")
    trainer.fit()
    with torch.no_grad():
        next(trainer.ema.module.parameters()).fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="weights are not finite"):
        trainer._snapshot(None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(small, tmp_path, number):
    trainer = Trainer(small(steps=1000), out=tmp_path / "run")
    step = trainer.step

    def interrupted(batch):
        if trainer.steps == 7:
            os.kill(os.getpid(), number)
        return step(batch)

    trainer.step = interrupted
    before = signal.getsignal(number)
    result = trainer.fit()
    assert signal.getsignal(number) is before
    assert (result.reason, result.step) == ("interrupted", 8)
    assert any(f"gan-fast resume {tmp_path / 'run'}" in line for line in result.lines())
    assert Trainer.resume(tmp_path / "run").steps == 8


def test_what_a_run_leaves(small, tmp_path):
    run = tmp_path / "run"
    Trainer(small(steps=30, log_steps=10, snapshot_seconds=1e-6), out=run).fit()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000000020", "000000030"]
    assert (run / "latest").read_text() == "checkpoints/000000030\n"
    for picture in ("samples.png", "losses.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert any((run / "tensorboard").iterdir())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [10, 20, 30]
    # A killed run has logged beyond its checkpoint and may have half a line: resuming makes those readings again.
    (run / "log.jsonl").open("a").write(json.dumps({**log[-1], "step": 35}) + "\n" + '{"step": 40, "im')
    Trainer.resume(run, steps=40).fit()
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [10, 20, 30, 40]
    with pytest.raises(ValueError, match="already holds a run: go on with `gan-fast resume"):
        Trainer(small(steps=1), out=run).fit()
