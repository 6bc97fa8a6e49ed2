"""gan-fast as a person meets it: exit codes, one clear line, files where it said."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from gan_fast.cli import COMMANDS, main

QUICK = ["--batch=16", "--latent-dim=8", "--base-channels=8", "--threads=1", "--quiet", "--device=cpu"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fails(capsys, arguments, code, message):
    try:
        returned = main(arguments)
    except SystemExit as stop:  # the parser's way of refusing
        returned = stop.code
    error = capsys.readouterr().err
    assert returned == code, error
    assert message in error and "Traceback" not in error
    if code == 1:
        assert error.count("\n") == 1, f"more than one line: {error}"


def test_train_resume_generate_evaluate(tmp_path, capsys):
    assert main(["train", "--steps", "3", "--evaluation-samples", "50", *QUICK]) == 0
    out = capsys.readouterr().out
    run = tmp_path / "runs" / "0001-dcgan-digits"
    for expected in (
        "samples.png",
        "tensorboard --logdir",
        "gan-fast resume",
        "proxy Frechet",
        "Gaussian of the pixels",
    ):
        assert expected in out
    assert json.loads((run / "quality.json").read_text())["samples"] == 50

    assert main(["resume", "--steps", "5", "--quiet"]) == 0
    assert (run / "latest").read_text().strip().endswith("5")
    assert main(["resume", str(run), "--seconds", "0.001"]) == 0, "a budget already used is no failure"

    assert main(["generate", "--run", str(run), "--count", "5", "--seed", "3", "--out", "many"]) == 0
    assert main(["generate", "--seeds", "4", "--out", "one"]) == 0
    assert sorted(p.name for p in (tmp_path / "many").iterdir()) == [
        "grid.png",
        *(f"seed{n:06d}.png" for n in range(3, 8)),
    ]
    with (
        Image.open(tmp_path / "one" / "seed000004.png") as one,
        Image.open(tmp_path / "many" / "seed000004.png") as same,
    ):
        assert one.size == (8, 8) and one.mode == "L" and one.tobytes() == same.tobytes(), (
            "an image belongs to its seed"
        )

    capsys.readouterr()
    assert main(["evaluate", "--run", str(run), "--count", "20"]) == 0
    assert "20 samples against digits" in capsys.readouterr().out
    assert main(["train", "--steps", "1", "--evaluation-samples", "0", *QUICK]) == 0
    assert (tmp_path / "runs" / "0002-dcgan-digits").is_dir()
    fails(capsys, ["train", "--steps", "1", "--out", str(run), *QUICK], 1, "already holds a run")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fly"], 2, "unknown command 'fly'; it is one of train, resume"),
        (["train", "--bath", "3"], 2, "--bath"),
        (["train", "--batch", "many"], 2, "--batch"),
        (["train", "--batch", "0"], 2, "batch must be greater than 0, got 0"),
        (["train", "--recipe", "vae"], 2, "unknown recipe 'vae': known are"),
        (["train", "--recipe"], 2, "--recipe needs a name"),
        (["generate", "--count", "0"], 2, "count must be at least 1"),
        (["train", "--data", "nowhere"], 1, "nowhere"),
        (["train", "--device", "gpu7"], 1, "device must be auto, cpu"),
        (["resume"], 1, "train one with `gan-fast train`"),
        (["resume", "nowhere"], 1, "nowhere does not exist"),
        (["generate", "--run", "."], 1, "neither a run folder"),
        (["evaluate"], 1, "no run in runs/"),
        (["data", "nowhere"], 1, "nowhere"),
    ],
)
def test_failures_are_one_line(capsys, arguments, code, message):
    fails(capsys, arguments, code, message)


def test_debug_shows_the_traceback(capsys):
    assert main(["resume", "nowhere", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_missing_extra_is_named(capsys, monkeypatch):
    real = builtins.__import__

    def without_tyro(name, *args, **kwargs):
        if name == "tyro":
            raise ModuleNotFoundError("No module named 'tyro'", name="tyro")
        return real(name, *args, **kwargs)

    for module in [name for name in sys.modules if name.startswith(("tyro", "gan_fast.cli."))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without_tyro)
    fails(capsys, ["train"], 1, "needs tyro: pip install 'gan-fast[train]'")


def test_help_lists_every_command(capsys):
    assert main([]) == 0 and main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_data_command(tmp_path, capsys):
    assert main(["data"]) == 0
    assert "ready to train" in capsys.readouterr().out
    assert main(["data", "digits", "--pack", "d.pack", "--resolution", "16"]) == 0
    assert "16x16" in capsys.readouterr().out
    assert main(["data", "d.pack", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resolution"] == 16


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "gan_fast", "train", "--steps", "1000000", "--out", "run", *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        deadline = time.monotonic() + 90
        while not (tmp_path / "run" / "log.jsonl").exists() or not (tmp_path / "run" / "log.jsonl").stat().st_size:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "interrupted after" in out and "gan-fast resume run" in out
    assert "Traceback" not in out
    step = int((tmp_path / "run" / "latest").read_text().strip().rpartition("/")[2])
    assert step >= 20
