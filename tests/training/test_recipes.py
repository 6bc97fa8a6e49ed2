"""Recipes: every field a flag with help, values refused with a reason, budgets, the machine's choices."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gan_fast import losses, recipes
from gan_fast.recipes import CGAN, DCGAN, GAN, WGAN, WGANGP
from gan_fast.training import Budget, machine

pytest.importorskip("tyro", reason="the command line is not installed: pip install 'gan-fast[train]'")
from gan_fast.cli.parse import parse


@pytest.mark.parametrize("kind", [CGAN, DCGAN, GAN, WGAN, WGANGP])
def test_every_field_is_a_flag_with_its_help(capsys, kind):
    with pytest.raises(SystemExit) as stop:
        parse(kind, ["--help"], "train")
    assert stop.value.code == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(kind):
        flag = "--" + field.name.replace("_", "-")
        assert flag in words, f"{flag} is missing"
    # One docstring of the base and one of the recipe.
    assert "Half-life of the averaged generator" in words and "Length of a latent vector" in words


def test_flags_arrive():
    argv = ["--loss", "hinge", "--critic-norm", "none", "--kimg", "2.5", "--flip"]
    argv += ["--channels-last", "False", "--out", "x", "--beta1", "0"]
    settings = parse(DCGAN, argv, "train")
    assert settings == recipes.get(
        "dcgan", loss="hinge", critic_norm="none", kimg=2.5, flip=True, channels_last=False, out="x", beta1=0.0
    )
    assert parse(DCGAN, [], "train") == recipes.get("dcgan")


@pytest.mark.parametrize("name", ["minimax", "non_saturating", "wasserstein", "hinge", "least_squares", "relativistic"])
def test_loss_names_are_those_of_losses_get(name):
    assert isinstance(recipes.get("dcgan", loss=name).loss_function(), losses.get(name))
    assert recipes.get("dcgan", label_smoothing=0.1).loss_function().label_smoothing == 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch must be greater than 0, got 0"),
        ({"kimg": math.nan}, "kimg must be greater than 0, got nan"),
        ({"lr_g": -1e-3}, "lr_g must be greater than 0"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\), got 1.0"),
        ({"seed": -1}, "seed must be 0 or greater"),
        ({"loss": "gradient"}, "no adversarial loss is called 'gradient'"),
        ({"label_smoothing": 2.0}, "label_smoothing is 2.0"),
        ({"label_smoothing": 0.1, "loss": "hinge"}, "label_smoothing is for the non_saturating loss only"),
        ({"colour": 3}, "has no setting 'colour'"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        recipes.get("dcgan", **settings)


def test_budget_is_the_first_to_be_reached():
    assert recipes.get("dcgan").budget == DCGAN.default_budget
    budget = recipes.get("dcgan", steps=10, kimg=1.0).budget
    assert budget == Budget(steps=10, images=1000)
    assert budget.fraction(steps=5, images=900, seconds=1e9) == 0.9
    assert str(budget) == "10 steps or 1 kimg"


def test_extra_layers_follow_the_size_unless_asked_for():
    for asked, at_8, at_32 in [(None, 1, 0), (0, 0, 0), (2, 2, 2)]:
        recipe = recipes.get("dcgan", extra_layers=asked)
        assert [recipe.networks((1, side, side))[1]["extra_layers"] for side in (8, 32)] == [at_8, at_32]


def test_names():
    assert "dcgan" in recipes.names()
    with pytest.raises(ValueError, match="unknown recipe 'stylegan9': known are"):
        recipes.get("stylegan9")


def test_machine_follows_its_rule(monkeypatch):
    cpu = torch.device("cpu")
    for tiles, precision in [(True, "bf16"), (False, "fp32")]:
        monkeypatch.setattr(machine, "has_bf16_tiles", lambda tiles=tiles: tiles)
        assert machine.choose(cpu) == machine.Machine(cpu, precision, True)
    assert machine.choose(cpu, "bf16", channels_last=False) == machine.Machine(cpu, "bf16", False)
    with pytest.raises(ValueError, match="precision must be one of auto, fp32, bf16, fp16, got 'fp8'"):
        machine.choose(cpu, "fp8")
    with pytest.raises(ValueError, match="device must be auto, cpu"):
        machine.choose_device("gpu0")
