"""Samples judged while a run trains: on time, without touching it, and its best checkpoint kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from gan_fast import recipes
from gan_fast.cli import main
from gan_fast.data import PointDataset
from gan_fast.metrics import QualityReport
from gan_fast.training import CheckpointError, Sampler, Trainer, checkpoint
from gan_fast.training.evaluation import Judge, Judgement

QUICK = ["--batch=16", "--latent-dim=8", "--base-channels=8", "--threads=1", "--quiet", "--device=cpu"]


def quality(value: float) -> QualityReport:
    rest = dict.fromkeys(QualityReport.__dataclass_fields__, 0.0)
    return QualityReport(**{**rest, "proxy_frechet": value, "replay": None, "agreement": None})


def script(trainer, values):
    """Let the trainer find these distances, one after the other."""
    left = list(values)

    class Scripted:
        count = trainer.judge.count

        def __call__(self, samples, progress, requested=None):
            return Judgement(len(samples), quality(left.pop(0)))

    trainer.judge = Scripted()
    return trainer


def steps_of(run):
    return [json.loads(line)["step"] for line in (run / "evaluations.jsonl").read_text().splitlines()]


def test_the_best_checkpoint_is_kept_and_can_be_named(small, tmp_path, capsys):
    """16 images a step, judged every 64: at steps 4, 8, 12, 16 and, as the end, 18."""
    recipe = small(steps=18, evaluate_kimg=0.064, evaluation_samples=20, keep=1)
    run = tmp_path / "run"
    result = script(Trainer(recipe, out=run), [5.0, 3.0, 4.0, 3.0, 3.5]).fit()
    assert steps_of(run) == [4, 8, 12, 16, 18]
    assert result.best == run / "checkpoints" / "000000008", "an equal one does not replace it"
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"000000008", "000000018"}
    assert str(run / "best") in "\n".join(result.lines())
    best = Sampler(run / "best")
    assert best.state["counters"]["steps"] == 8 and checkpoint.latest(run / "latest").name == "000000018"
    assert json.loads((run / "quality.json").read_text())["proxy_frechet"] == 3.5
    assert main(["generate", "--run", str(run / "best"), "--count", "2", "--out", str(tmp_path / "images")]) == 0
    assert "000000008" in capsys.readouterr().out

    going_on = script(Trainer.resume(run / "best", steps=13), [9.0, 2.0])
    assert going_on.steps == 8
    going_on.fit()
    assert steps_of(run) == [4, 8, 12, 13], "what came after the best is made again"
    assert checkpoint.latest(run).name == "000000013" and checkpoint.read_best(run)[0].name == "000000013"

    script(Trainer.resume(run, steps=17, evaluation_samples=30), [99.0, 100.0]).fit()
    assert checkpoint.read_best(run)[0].name == "000000016", "figures of other sample counts do not compare"


def test_a_judgement_that_was_cut_off_is_made_again(small, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(IndexError):  # the script has no figure for step 4, after its checkpoint was saved
        script(Trainer(small(steps=6, evaluate_kimg=0.064, evaluation_samples=20), out=run), []).fit()
    script(Trainer.resume(run), [5.0, 6.0]).fit()
    assert steps_of(run) == [4, 6] and checkpoint.read_best(run)[0].name == "000000004"


def test_judging_does_not_touch_the_run(small, tmp_path):
    settings = {"steps": 6, "seed": 3}
    Trainer(small(**settings), out=tmp_path / "plain").fit()
    torch.manual_seed(123)
    names = ("proxy", "proxy_density_coverage")
    trainer = Trainer(small(**settings, evaluate_kimg=0.032, evaluation_samples=20, metrics=names), out=tmp_path / "j")
    trainer.fit()
    assert steps_of(tmp_path / "j") == [2, 4, 6]
    assert "proxy_coverage" in json.loads((tmp_path / "j" / "evaluations.jsonl").read_text().splitlines()[0])
    assert trainer.judgement.figures.keys() >= {"proxy_frechet", "proxy_density"}
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / name)).tensors for name in ("plain", "j"))
    for group, tensors in one.items():
        assert all(torch.equal(value, two[group][name]) for name, value in tensors.items()), group


def test_damaged_and_missing_best_are_said(small, tmp_path):
    run = tmp_path / "run"
    Trainer(small(steps=1), out=run).fit()
    with pytest.raises(CheckpointError, match="not trained with --evaluate-kimg"):
        Sampler(run / "best")
    (run / "best").write_text("half")
    with pytest.raises(CheckpointError, match="best is damaged"):
        checkpoint.read_best(run)


@pytest.mark.parametrize(
    ("data", "own", "metric"),
    [("grid25", {"caught": 25, "high_quality": 0.9}, "caught"), ("digits", {"is": 3.0}, "is")],
)
def test_more_is_better_where_it_is(data, own, metric):
    """Of modes the count comes first; scores that grow with quality are ranked downwards."""
    from gan_fast.metrics import ModeFigures, ModeReport
    from gan_fast.metrics.fidelity import FidelityReport

    def judged(values):
        if data == "grid25":
            figures = ModeFigures(values["caught"], values["high_quality"], 1.0, 0.0)
            return Judgement(10, ModeReport("grid25", 10, 25, "modes", figures, figures, figures, 0.0)).rank("proxy")
        report = FidelityReport("digits", "n", 10, 10, 10, values, 0, {})
        return Judgement(10, None, (report,)).rank(metric)

    assert judged(own) < judged({**own, metric: own[metric] - 1})


def test_what_cannot_be_judged_is_refused_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("GAN_FAST_INCEPTION", raising=False)
    for hidden in [False, True] if _has_torch_fidelity() else [True]:
        if hidden:
            monkeypatch.setitem(sys.modules, "torch_fidelity", None)
        assert main(["train", "--metrics", "fid", *QUICK]) == 1
        error = capsys.readouterr().err
        wanted = "pip install 'gan-fast[fid]'" if hidden else "--inception-weights FILE"
        assert wanted in error and "proxy" in error and error.count("\n") == 1
        assert not (tmp_path / "runs").exists()
    assert main(["train", "--data", "grid25", "--metrics", "proxy_precision_recall", "--device=cpu"]) == 1
    assert "judge images, and grid25 holds points" in capsys.readouterr().err
    with pytest.raises(ValueError, match="evaluation_samples must not be 0"):
        recipes.get("dcgan", evaluate_kimg=1, evaluation_samples=0)
    with pytest.raises(ValueError, match="metrics must be one or more of proxy"):
        recipes.get("dcgan", metrics=("fdi",))
    with pytest.raises(ValueError, match="a data set of gan_fast"):
        Trainer(recipes.get("dcgan", evaluate_kimg=1), data=[torch.zeros(1, 8, 8)] * 16)
    with pytest.raises(ValueError, match="at least 10 samples and as many images, got 5 and 1438"):
        Trainer(recipes.get("dcgan", metrics=("proxy_density_coverage",), evaluation_samples=5))
    with pytest.raises(ValueError, match="holds points"):
        Judge(PointDataset(torch.randn(10, 2)), ("fid",))


def _has_torch_fidelity():
    try:
        import torch_fidelity  # noqa: F401
    except ImportError:
        return False
    return True


def test_evaluate_takes_any_of_the_metrics(small, tmp_path, capsys):
    run = tmp_path / "run"
    Trainer(small(steps=1), out=run).fit()
    assert main(["evaluate", "--run", str(run), "--count", "30", "--metrics", "proxy_precision_recall"]) == 0
    out = capsys.readouterr().out
    assert "proxy precision" in out and "proxy Frechet" not in out
    saved = json.loads((run / "quality.json").read_text())
    assert saved["samples"] == 30 and saved["fidelity"][0]["figures"].keys() == {"proxy_precision", "proxy_recall"}


WORKER = """
import sys
from gan_fast import recipes
from gan_fast.training import Trainer
settings = eval(sys.argv[2])
trainer = Trainer(recipes.get("dcgan", **settings), out=sys.argv[1])
assert trainer.world.size == 2 and (trainer.judge is not None) == trainer.world.is_main
trainer.fit()
"""


@pytest.mark.slow
def test_one_of_two_processes_judges_and_both_go_on(small, tmp_path):
    recipe = small(data="grid25", width=8, steps=6, log_steps=2, evaluate_kimg=0.032, evaluation_samples=50)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    settings = {k: v for k, v in recipe.to_dict().items() if k != "out"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(script), str(tmp_path / "run"), repr(settings)]
    subprocess.run(command, env=environment, check=True, timeout=240)
    assert steps_of(tmp_path / "run") == [2, 4, 6]
    assert checkpoint.read_best(tmp_path / "run")[1]["samples"] == 50
