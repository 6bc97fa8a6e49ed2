"""Checkpoints are whole or refused by name, whatever happens to the process or the files."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gan_fast.training import CheckpointError, Sampler, Trainer, checkpoint


@pytest.fixture
def run(small, tmp_path):
    Trainer(small(steps=2), out=tmp_path / "run").fit()
    return tmp_path / "run"


def test_no_pickle_anywhere(run):
    names = {path.name for path in checkpoint.latest(run).iterdir()}
    assert {name.rpartition(".")[2] for name in names} == {"safetensors", "json"}


@pytest.mark.parametrize("name", ["generator", "critic", "ema", "optimizers", "random"])
def test_truncated_altered_and_missing_files_are_named(run, name):
    path = checkpoint.latest(run) / f"{name}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=f"{path} is truncated: {len(whole) - 1} bytes where {len(whole)}"):
        Trainer.resume(run)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=f"{path} is damaged"):
        Trainer.resume(run)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{path} is missing"):
        Trainer.resume(run)


def test_foreign_and_damaged_state_is_named(run, tmp_path):
    where = checkpoint.latest(run)
    state = where / "state.json"
    whole = state.read_bytes()
    for content, message in [
        (whole[:100], f"{state} is damaged"),
        (b"\xff\xfe\x00", f"{state} is damaged"),
        (b"[1, 2]", f"{state} was not written by gan_fast"),
        (b'{"epoch": 3}', f"{state} was not written by gan_fast"),
        (json.dumps({**json.loads(whole), "version": 99}).encode(), "version 99 and this gan_fast reads 1"),
    ]:
        state.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            Trainer.resume(run)
    state.unlink()
    with pytest.raises(CheckpointError, match="not a gan_fast checkpoint"):
        Trainer.resume(run)
    for path, message in [(tmp_path / "no", "does not exist"), (tmp_path, "neither a run folder")]:
        with pytest.raises(CheckpointError, match=message):
            Sampler(path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(CheckpointError, match="exists and is not a gan_fast checkpoint"):
        checkpoint.save(tmp_path / "mine", {}, {})


def test_moments_return_in_the_memory_format_of_their_weights():
    """A fused optimiser walks flat memory: moments in another format would be applied to the wrong weights."""
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    optimizer = torch.optim.Adam([weight], fused=True)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    saved = {k: v.clone().contiguous() for k, v in checkpoint.optimizer_tensors(optimizer).items()}
    other = torch.optim.Adam([weight], fused=True)
    checkpoint.restore_optimizer(other, saved)
    moment = other.state[weight]["exp_avg"]
    assert moment.stride() == weight.stride() and torch.equal(moment, saved["0.exp_avg"])


RUNNER = """
import sys
from gan_fast import recipes
from gan_fast.training import Trainer, checkpoint
from pathlib import Path
out = Path(sys.argv[1])
settings = dict(steps=100000, batch=8, latent_dim=4, base_channels=8, threads=1, quiet=True, log_steps=5, device="cpu")
# A checkpoint at every reading, so that most of the time is spent inside a save.
settings["snapshot_seconds"] = 1e-6
if (out / "latest").exists():
    trainer = Trainer.resume(out, **settings)
else:
    trainer = Trainer(recipes.get("dcgan", **settings), out=out)
print("started", trainer.steps, flush=True)
trainer.fit()
"""


def test_kill_9_at_any_moment_loses_at_most_one_interval(tmp_path):
    """Three kills at random moments of one run; after each it goes on from a whole checkpoint, never further back."""
    moments = random.Random(7)
    run, least = tmp_path / "run", 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}

    def finished_step():
        # `latest` is replaced last, so what it names is finished: the run may be ahead of it, never behind.
        return int(Path((run / "latest").read_text().strip()).name) if (run / "latest").exists() else -1

    for _ in range(3):
        command = [sys.executable, "-c", RUNNER, str(run)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            line = process.stdout.readline()
            assert line.startswith("started"), line
            assert int(line.split()[1]) >= least, "went on from before the last finished checkpoint"
            deadline = time.monotonic() + 60
            while finished_step() < least + 10 and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.2))
            least = finished_step()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        resumed = Trainer.resume(run)
        assert resumed.steps >= least >= 10
        logged = (run / "log.jsonl").read_text().splitlines()
        whole = [json.loads(row)["step"] for row in logged if row.endswith("}")]
        assert max(whole, default=0) - resumed.steps <= 5, "more than one interval of 5 steps was lost"
    Trainer.resume(run, steps=resumed.steps + 1, snapshot_seconds=60.0).fit()
    assert not list((run / "checkpoints").glob(".partial-*")), "what killed saves left is cleared away"
    assert len(list((run / "checkpoints").iterdir())) <= 2


class Killed(BaseException):
    """Nothing catches it: what follows the call that raises it never happens, as after kill -9."""


def test_death_before_every_file_operation_of_a_save(small, tmp_path, monkeypatch):
    """The process dies before the k-th fsync, rename or removal of one snapshot, for every k there is."""
    died = 0
    for k in range(1000):
        run = tmp_path / f"run{k}"
        Trainer(small(steps=3, keep=1), out=run).fit()
        trainer = Trainer.resume(run, steps=5)
        trainer.step(trainer.feed.next())
        countdown = iter(range(k, -1, -1))

        def deadly(function, countdown=countdown):
            def call(*args, **kwargs):
                if next(countdown, 0) == 0:
                    raise Killed
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", deadly(os.fsync))
            patch.setattr(os, "replace", deadly(os.replace))
            patch.setattr(shutil, "rmtree", deadly(shutil.rmtree))
            try:
                trainer._keep()
            except Killed:
                died += 1
            else:
                break
        assert Trainer.resume(run).steps in (3, 4)
        assert Trainer.resume(run, steps=5).fit().step == 5
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["000000005"]
    assert died > 10
