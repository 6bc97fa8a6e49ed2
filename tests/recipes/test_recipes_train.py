"""Every recipe builds, steps and resumes bit for bit on points and images, from Python and the command line."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from gan_fast import data, recipes
from gan_fast.cli import main
from gan_fast.data import PointDataset
from gan_fast.training import Trainer, checkpoint

SMALL = {"batch": 16, "latent_dim": 4, "base_channels": 4, "width": 16, "threads": 1, "device": "cpu", "quiet": True}
CASES = {
    "wgan": ("wgan", {"critic_steps": 2}),
    "wgan_gp": ("wgan_gp", {"critic_steps": 2}),
    "wgan_gp simultaneous": ("wgan_gp", {"critic_steps": 1, "updates": "simultaneous"}),
    "dcgan r1 r2": ("dcgan", {"loss": "relativistic", "r1": 0.5, "r2": 0.5, "critic_norm": "none"}),
    "dcgan simultaneous": ("dcgan", {"r1": 0.5, "updates": "simultaneous"}),
    "r3gan": ("r3gan", {"group_size": 4, "burn_in_kimg": 0.2}),
    "r3gan simultaneous": ("r3gan", {"group_size": 4, "updates": "simultaneous"}),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sets():
    return {name: data.load(name) for name in ("digits", "grid25")}


def everything(trainer):
    networks = {"G": trainer.generator, "D": trainer.critic, "ema": trainer.ema.module}
    found = {f"{name}.{k}": v.clone() for name, module in networks.items() for k, v in module.state_dict().items()}
    for name, optimizer in zip(("G", "D"), trainer.optimizers, strict=True):
        found |= {f"optimiser {name}.{k}": v.clone() for k, v in checkpoint.optimizer_tensors(optimizer).items()}
    streams = {"latents": trainer.latents.stream, **trainer.adversarial_step.streams}
    return found | {name: stream.get_state() for name, stream in streams.items()}


def different(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def train(trainer, steps):
    for _ in range(steps):
        trainer.step(trainer.feed.next())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["digits", "grid25"])
def test_resume_is_bit_for_bit(sets, tmp_path, case, name):
    recipe_name, settings = CASES[case]
    recipe = recipes.get(recipe_name, **SMALL, **settings)
    straight, first = (Trainer(recipe, data=sets[name]) for _ in range(2))
    train(straight, 8)
    train(first, 4)
    first.save(tmp_path / "half")
    torch.manual_seed(99)  # nothing may depend on torch's global generator
    second = Trainer.resume(tmp_path / "half", data=sets[name])
    assert different(everything(first), everything(second)) == []
    train(second, 4)
    assert different(everything(straight), everything(second)) == []
    start = everything(Trainer(recipe, data=sets[name]))
    moved = different(start, {k: v for k, v in everything(second).items() if k in start})
    assert all(k in moved for k in start if k.startswith(("G.", "ema."))), "the generator learns"
    assert ("interpolation" in start) == (recipe_name == "wgan_gp")


def test_defaults_are_the_papers():
    wgan, gp = recipes.get("wgan"), recipes.get("wgan_gp")
    assert (wgan.clip, wgan.lr_g, wgan.lr_d, wgan.critic_steps, wgan.batch) == (0.01, 5e-5, 5e-5, 5, 64)
    assert (gp.gp_weight, gp.lr_g, gp.beta1, gp.beta2, gp.critic_steps, gp.batch) == (10.0, 1e-4, 0.0, 0.9, 5, 64)
    pair = [nn.Linear(2, 2), nn.Linear(2, 2)]
    assert all(isinstance(o, torch.optim.RMSprop) and not o.defaults["momentum"] for o in wgan.optimizers(*pair))
    for recipe, has_norm in ((wgan, True), (gp, False)):
        critic = Trainer(recipe, data=data.load("digits", limit=64)).critic
        assert any(isinstance(m, nn.BatchNorm2d) for m in critic.modules()) == has_norm


def test_dcgan_without_penalties_steps_as_before(sets, monkeypatch):
    """Nothing of the penalties is touched: one forward over both batches and one backward."""
    from gan_fast.training import step

    for name in ("critic_backward", "gradient_penalty", "clip_weights_", "fast_double_backward"):
        monkeypatch.delattr(step, name)
    train(Trainer(recipes.get("dcgan", **SMALL), data=sets["digits"]), 2)


def test_networks_follow_the_data(sets):
    auto, mlp, conv = (recipes.get("dcgan", network=network) for network in ("auto", "mlp", "dcgan"))
    assert [auto.networks(shape)[0] for shape in ((1, 8, 8), (2,))] == ["dcgan", "mlp"]
    assert mlp.networks((1, 8, 8)) == ("mlp", {"shape": [1, 8, 8], "latent_dim": 64, "width": 128, "depth": 3})
    with pytest.raises(
        ValueError, match=r"dcgan is for images \[C, H, H\] and the data holds points \[2\]: use --network"
    ):
        Trainer(conv, data=sets["grid25"])
    trainer = Trainer(recipes.get("dcgan", **SMALL, network="mlp"), data=sets["digits"])
    train(trainer, 2)
    assert trainer.sample(3).shape == (3, 1, 8, 8)


def test_points_are_full_precision_and_have_neither_sides_nor_mirror_images(sets):
    points = sets["grid25"]
    assert Trainer(recipes.get("dcgan", device="cpu"), data=points).machine.precision == "fp32"
    with pytest.raises(ValueError, match="flip mirrors images"):
        Trainer(recipes.get("dcgan", flip=True), data=points)
    with pytest.raises(ValueError, match="resolution 8 but the data given has points"):
        Trainer(recipes.get("dcgan", resolution=8), data=points)


def test_points_of_ones_own_and_loaders_of_points():
    points = torch.randn(64, 5)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(points), batch_size=16)
    for given in (PointDataset(points), torch.utils.data.TensorDataset(points), loader):
        trainer = Trainer(recipes.get("dcgan", **SMALL), data=given)
        train(trainer, 5)
        assert trainer.sample(3).shape == (3, 5)
    with pytest.raises(ValueError, match=r"\[N, D\], images, \[N, C, H, W\], or sounds, \[N, 1, T\], got \[16, 5, 5\]"):
        trainer.step(torch.randn(16, 5, 5))
    with pytest.raises(ValueError, match=r"points floating point, got torch\.int64"):
        trainer.step(torch.zeros(16, 5, dtype=torch.int64))


def test_other_points_are_refused_on_resume(sets, tmp_path):
    trainer = Trainer(recipes.get("dcgan", **SMALL), data=sets["grid25"])
    trainer.save(tmp_path / "c")
    with pytest.raises(ValueError, match="grid25 no longer holds the samples"):
        Trainer.resume(tmp_path / "c", data=sets["grid25"].held_out)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wgan", {"clip": 0}, "clip must be greater than 0, got 0"),
        ("wgan_gp", {"gp_weight": -1.0}, "gp_weight must be 0 or greater, got -1.0"),
        ("wgan_gp", {"critic_norm": "batch"}, "each image's own: use none"),
        ("wgan_gp", {"beta2": 1.0}, r"beta2 must be in \[0, 1\)"),
        ("dcgan", {"r1": -0.5}, "r1 must be 0 or greater, got -0.5"),
        ("dcgan", {"updates": "simultaneous", "critic_steps": 2}, "use --critic-steps 1"),
        ("dcgan", {"width": 0}, "width must be greater than 0"),
    ],
)
def test_refusals(name, settings, message):
    with pytest.raises(ValueError, match=message):
        recipes.get(name, **settings)


def test_command_line_on_points(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["--width", "16", "--threads", "1", "--quiet", "--device", "cpu"]
    command = [
        "train",
        "--recipe",
        "wgan_gp",
        "--data",
        "grid25",
        "--steps",
        "6",
        "--evaluation-samples",
        "500",
        *quick,
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    run = tmp_path / "runs" / "0001-wgan_gp-grid25"
    for expected in ("100,000 points of 2", "mlp networks", "500 samples against grid25", "uniform noise", "KL"):
        assert expected in out
    assert json.loads((run / "quality.json").read_text())["modes"] == 25
    assert (run / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert main(["resume", "--steps", "8", "--quiet"]) == 0
    assert "10,000 samples" not in capsys.readouterr().out, "the run's own count holds"
    assert main(["evaluate"]) == 0
    assert "10,000 samples against grid25" in capsys.readouterr().out
    assert main(["generate", "--count", "3", "--seed", "5", "--out", "made"]) == 0
    rows = (tmp_path / "made" / "points.csv").read_text().splitlines()
    assert rows[0] == "seed,x0,x1" and [row.split(",")[0] for row in rows[1:]] == ["5", "6", "7"]
    assert (tmp_path / "made" / "points.png").exists()
    assert main(["data", "ring8"]) == 0
    assert "8 modes" in capsys.readouterr().out
    assert main(["train", "--data", "grid25", "--network", "dcgan", *quick]) == 1
    assert "is for images" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["train", "--recipe", "wgan_gp", "--updates", "simultaneous"])
    assert stop.value.code == 2 and "--critic-steps 1" in capsys.readouterr().err
