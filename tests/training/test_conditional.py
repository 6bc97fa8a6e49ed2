"""Recipes gan and cgan, and labels on their way through the step, the trainer and the commands."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from gan_fast import data, losses, recipes
from gan_fast.cli import main
from gan_fast.metrics import class_agreement, extractor_for
from gan_fast.training import Sampler, Trainer, checkpoint
from gan_fast.training.control import Control
from gan_fast.training.distributed import World
from gan_fast.training.feed import to_one_hot
from gan_fast.training.machine import Machine
from gan_fast.training.sampling import chosen_classes
from gan_fast.training.step import AdversarialStep, Latents, Penalties

SMALL = {"batch": 16, "latent_dim": 4, "base_channels": 4, "width": 16, "threads": 1, "device": "cpu", "quiet": True}
CASES = {
    "projection": ("cgan", {}),
    "projection bf16": ("cgan", {"precision": "bf16", "critic_norm": "batch"}),
    "concat": ("cgan", {"conditioning": "concat", "r1": 0.5, "loss": "relativistic", "critic_norm": "none"}),
    "projection simultaneous": ("cgan", {"updates": "simultaneous", "r1": 0.5, "generator_norm": "none"}),
    "mlp": ("cgan", {"network": "mlp", "r2": 0.5}),
    "mlp concat": ("cgan", {"network": "mlp", "conditioning": "concat", "precision": "bf16"}),
    "gan": ("gan", {"critic_steps": 2}),
    "gan minimax": ("gan", {"loss": "minimax", "updates": "simultaneous", "precision": "bf16"}),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def small(name, **settings):
    known = type(recipes.get(name)).__dataclass_fields__
    return recipes.get(name, **{k: v for k, v in SMALL.items() if k in known}, **settings)


def train(trainer, steps):
    for _ in range(steps):
        stats = trainer.step(trainer.feed.next())
    assert torch.isfinite(stats.critic.loss) and torch.isfinite(stats.generator_loss)


def everything(trainer):
    networks = {"G": trainer.generator, "D": trainer.critic, "ema": trainer.ema.module}
    found = {f"{name}.{k}": v.clone() for name, module in networks.items() for k, v in module.state_dict().items()}
    for name, optimizer in zip(("G", "D"), trainer.optimizers, strict=True):
        found |= {f"optimiser {name}.{k}": v.clone() for k, v in checkpoint.optimizer_tensors(optimizer).items()}
    return found


@pytest.mark.parametrize("case", CASES)
def test_resume_is_bit_for_bit(digits, tmp_path, case):
    name, settings = CASES[case]
    recipe = small(name, **settings)
    straight, first = (Trainer(recipe, data=digits) for _ in range(2))
    start = everything(straight)
    train(straight, 6)
    train(first, 3)
    first.save(tmp_path / "half")
    torch.manual_seed(99)  # nothing may depend on torch's global generator
    second = Trainer.resume(tmp_path / "half", data=digits)
    train(second, 3)
    a, b = everything(straight), everything(second)
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
    assert all(not torch.equal(start[k], a[k]) for k in start if k.startswith("G.") and a[k].is_floating_point())


class Toy(torch.nn.Module):
    """G: (z, y) -> z + A y;  D: (x, y) -> f(x) + (B y) . x, smooth, in float64."""

    def __init__(self, critic):
        super().__init__()
        self.critic = critic
        self.table = torch.nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
        self.f = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()

    def forward(self, x, labels):
        own = labels.double() @ self.table
        return self.f(x.double()).flatten() + (own * x).sum(1) if self.critic else x.double() + own


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
@pytest.mark.parametrize("penalties", [Penalties(), Penalties(r1=0.7, r2=0.3), Penalties(interpolated=2.0)])
def test_the_gradient_is_the_formula_with_labels(updates, penalties):
    """Losses and penalties at (x, y) and (G(z, y), y), written out."""
    g, d = Toy(False), Toy(True)
    machine, world = Machine(torch.device("cpu"), "fp32", False), World()
    optimizers = tuple(torch.optim.SGD(net.parameters(), 0.1) for net in (g, d))
    loss = losses.RelativisticLoss()
    step = AdversarialStep(
        g,
        d,
        loss,
        optimizers,
        Latents(2, 0, machine.device, world),
        generator_period=1,
        machine=machine,
        world=world,
        updates=updates,
        penalties=penalties,
    )
    real, y = torch.randn(12, 2).double(), to_one_hot(torch.arange(12) % 3, 3, machine.device)
    stream = torch.Generator().manual_seed(0)
    t_stream = torch.Generator().manual_seed(1)
    first, second = (torch.randn(12, 2, generator=stream) for _ in range(2))

    fake = g(first, y).detach()
    x, f = real.clone().requires_grad_(), fake.clone().requires_grad_()
    real_logits, fake_logits = d(x, y), d(f, y)
    total = torch.nn.functional.softplus(fake_logits - real_logits).mean()
    for images, logits, weight in ((x, real_logits, penalties.r1), (f, fake_logits, penalties.r2)):
        (own,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        total = total + weight / 2 * own.square().sum(1).mean()
    if penalties.interpolated:
        t = torch.rand(12, 1, generator=t_stream, dtype=torch.float64)
        middle = torch.lerp(real, fake, t).requires_grad_()
        (own,) = torch.autograd.grad(d(middle, y).sum(), middle, create_graph=True)
        total = total + penalties.interpolated * (own.norm(dim=1) - 1).square().mean()
    expected = [
        p.detach() - 0.1 * v for p, v in zip(d.parameters(), torch.autograd.grad(total, [*d.parameters()]), strict=True)
    ]
    before = [p.detach().clone() for p in d.parameters()]

    def generator_gradient(z):
        value = torch.nn.functional.softplus(d(real, y) - d(g(z, y), y)).mean()
        return torch.autograd.grad(value, g.table)[0]

    if updates == "simultaneous":
        expected_g = g.table.detach() - 0.1 * generator_gradient(first)
        step(real, 1, y)
    else:
        step.train_critic(real, y)
        expected_g = g.table.detach() - 0.1 * generator_gradient(second)
        step.train_generator(real, y)
    assert any(not torch.equal(a, b) for a, b in zip(before, expected, strict=True))
    for parameter, value in zip(d.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(g.table.detach(), expected_g, rtol=1e-5, atol=1e-6)


def agreement_after(kimg, digits, **settings):
    trainer = Trainer(recipes.get("cgan", device="cpu", threads=1, **settings), data=digits)
    while trainer.images < kimg * 1000:
        trainer.step(trainer.feed.next())
    return class_agreement(trainer.sample(1000), chosen_classes(range(1000), None, 10), extractor_for(digits)).share


@pytest.mark.parametrize(
    ("conditioning", "kimg"), [("projection", 40), pytest.param("concat", 150, marks=pytest.mark.slow)]
)
def test_samples_are_of_the_class_asked_for(digits, conditioning, kimg):
    """Measured over three seeds: projection 0.96 to 0.97, concat 0.94 to 0.96; the bound is 0.85.

    Broken versions of projection, same measure, all at most 0.12: the critic or the generator does not hear the class,
    generated samples are scored as another class than they were made as, real ones have the label of another.
    """
    assert agreement_after(kimg, digits, network="mlp", batch=128, conditioning=conditioning) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("conditioning", "bound"), [("projection", 0.95), ("concat", 0.7)])
def test_convolutional_networks_learn_the_classes(digits, conditioning, bound):
    """Measured over three seeds: projection 0.98 to 0.99, concat 0.84 to 0.93."""
    assert agreement_after(24, digits, conditioning=conditioning) > bound


def test_classes_of_seeds():
    assert chosen_classes([3, 11, 20], None, 10).tolist() == [3, 1, 0]
    assert chosen_classes([3, 11], [7, 2], 10).tolist() == [7, 2] and chosen_classes([3, 4], None, 0).tolist() == [0, 0]


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["--batch=16", "--latent-dim=8", "--base-channels=8", "--threads=1", "--quiet", "--device=cpu"]
    assert main(["train", "--recipe", "cgan", "--steps", "40", "--evaluation-samples", "50", *quick]) == 0
    out, run = capsys.readouterr().out, tmp_path / "runs" / "0001-cgan-digits"
    assert "% of the samples are of the class asked for" in out
    saved = json.loads((run / "quality.json").read_text())["agreement"]
    assert 0 <= saved["share"] <= 1 and saved["test_accuracy"] > 0.97 and len(saved["per_class"]) == 10

    def picture(seed, *arguments):
        assert main(["generate", "--seeds", str(seed), *arguments, "--out", "out"]) == 0
        with Image.open(tmp_path / "out" / f"seed{seed:06d}.png") as image:
            return image.tobytes()

    assert picture(13) == picture(13, "--classes", "3") != picture(13, "--classes", "4")
    assert main(["generate", "--seeds", "1", "13", "--classes", "2", "4", "--out", "two"]) == 0
    with Image.open(tmp_path / "two" / "seed000013.png") as image:
        assert image.tobytes() == picture(13, "--classes", "4")
    control = Control(run)
    torch.testing.assert_close(control.pictures(control.points([3, 14])), Sampler(run).samples([3, 14]))
    assert main(["interpolate", "--seeds", "1", "2", "--classes", "7", "--frames", "4", "--out", "walk.png"]) == 0
    for arguments, message in (
        (["--classes", "10"], "0 to 9, got [10]"),
        (["--count", "3", "--classes", "1", "2"], "one for each of the 3 seeds"),
        (["--truncation", "0.5"], "needs a style space"),
    ):
        assert main(["generate", *arguments]) == 1 and message in capsys.readouterr().err
    assert main(["evaluate", "--count", "20"]) == 0 and "class agreement" in capsys.readouterr().out


def test_data_without_classes_is_refused():
    for spec in ("grid25", data.ImageDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))):
        with pytest.raises(ValueError, match=r"has no classes to train on: put .* lay a labels.csv beside them"):
            Trainer(small("cgan"), data=data.load(spec) if isinstance(spec, str) else spec)
