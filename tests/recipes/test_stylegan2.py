"""The stylegan2 recipe: its phases and corrections, its state, several processes, what it refuses, that it learns."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from gan_fast import data, recipes
from gan_fast.metrics import extractor_for, proxy_frechet
from gan_fast.models import stylegan2
from gan_fast.recipes import StyleGAN2
from gan_fast.training import Sampler, Trainer, checkpoint

pytest.importorskip("tyro", reason="the command line is not installed: pip install 'gan-fast[train]'")
from gan_fast.cli.parse import parse

SMALL = {
    "config": "tiny",
    "batch": 16,
    "latent_dim": 16,
    "w_dim": 16,
    "channel_base": 128,
    "channel_max": 16,
    "path_length": 2.0,
    "path_length_every": 3,
    "r1_every": 2,
    "ada_every": 2,
    "ada_kimg": 0.5,
    "precision": "fp32",
    "threads": 1,
    "device": "cpu",
    "quiet": True,
}


@pytest.fixture(scope="module", autouse=True)
def own_cache_and_threads(tmp_path_factory):
    threads, patch = torch.get_num_threads(), pytest.MonkeyPatch()
    patch.setenv("GAN_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def small(**settings):
    return recipes.get("stylegan2", **{**SMALL, **settings})


def train(trainer, steps):
    for _ in range(steps):
        trainer.step(trainer.feed.next())


def test_eight_thousand_images_bring_samples_near_the_digits_asked_for(digits):
    """Measured after 250 steps, 11 to 15 s of one core: proxy distance 32 to 40, and 57 to 64 % of the samples read as
    the digit asked for, over two seeds in fp32 and one in bf16; the bounds are 60 and 45 %.

    Broken versions, same measure: the critic given the next image's label 82 and 9 %, real and fake exchanged in its
    loss 228 and 10 %, sign of the generator's loss flipped 184 and 10 %, average never updated 70 and 8 %.
    """
    settings = {"channel_base": 256, "channel_max": 64, "latent_dim": 32, "w_dim": 32, "batch": 32, "conditional": True}
    settings |= {"r1": 0.1, "r1_every": 16, "path_length_every": 4, "ema_kimg": 1.0, "lr_g": 4e-3, "lr_d": 4e-3}
    settings |= {"augment_policy": "blit", "ada_kimg": 20.0, "seed": 1}
    trainer = Trainer(small(**settings), data=digits)
    train(trainer, 250)
    samples, judge = trainer.sample(1000), extractor_for(digits)
    asked = torch.arange(1000) % 10
    real = digits.float_batch(torch.arange(len(digits)))
    assert proxy_frechet(samples, real, judge) < 60
    assert (judge.predictions(samples) == asked).float().mean() > 0.45


def everything(trainer):
    found = {}
    for name, module in (("G", trainer.generator), ("D", trainer.critic), ("ema", trainer.ema.module)):
        found |= {f"{name}.{k}": v.clone() for k, v in module.state_dict().items()}
    for name, optimizer in zip(("G", "D"), trainer.optimizers, strict=True):
        found |= {f"adam {name}.{k}": v.clone() for k, v in checkpoint.optimizer_tensors(optimizer).items()}
    step = trainer.adversarial_step
    found |= {f"stream {k}": v.get_state() for k, v in {"latents": trainer.latents.stream, **step.streams}.items()}
    return found | {f"step {k}": v.clone() for k, v in step.state().items()}


@pytest.mark.parametrize(
    "settings",
    [{"augment_policy": "bgcfnc", "conditional": True}, {"augment": "diffaugment", "precision": "bf16", "flip": True}],
    ids=["ada, classes", "diffaugment, bf16"],
)
def test_resume_is_bit_for_bit(digits, tmp_path, settings):
    straight = Trainer(small(**settings), data=digits)
    train(straight, 7)
    first = Trainer(small(**settings), data=digits)
    train(first, 3)
    first.sample(5)  # what is drawn to be looked at must not move the run
    first.save(tmp_path / "half")
    torch.manual_seed(99)  # nothing may depend on torch's global generator
    second = Trainer.resume(tmp_path / "half", data=digits)
    train(second, 4)
    one, two = everything(straight), everything(second)
    assert one.keys() == two.keys() and [name for name in one if not torch.equal(one[name], two[name])] == []
    assert {"step path_length_mean", "stream augmentation", "stream noise"} <= one.keys()
    assert float(one["step path_length_mean"]) > 0
    if settings.get("augment") != "diffaugment":
        assert float(one["step augmentation_statistics"].abs().sum() + one["step augmentation_p"]) > 0


def test_a_fixed_p_can_be_set_when_a_run_goes_on(digits, tmp_path):
    first = Trainer(small(augment_p=0.25), data=digits)
    train(first, 1)
    first.save(tmp_path / "one")
    assert float(Trainer.resume(tmp_path / "one", data=digits).adversarial_step.augment.p) == 0.25
    assert float(Trainer.resume(tmp_path / "one", data=digits, augment_p=0.75).adversarial_step.augment.p) == 0.75


def test_each_phase_has_its_turn_its_weight_and_its_own_update(digits):
    """R1 at steps 1, 3, 5, ... and path length at 1, 4, ...; each with its interval as weight, Adam corrected."""
    trainer = Trainer(small(lr_g=0.0025, lr_d=0.002, beta2=0.99), data=digits)
    step = trainer.adversarial_step
    turns = []
    for name in ("train_generator", "regularise_generator", "train_critic", "regularise_critic"):
        original = getattr(step, name)

        def logged(*args, name=name, original=original):
            turns.append(name)
            return original(*args)

        setattr(step, name, logged)
    train(trainer, 4)
    g, pl, d, r1 = "train_generator", "regularise_generator", "train_critic", "regularise_critic"
    assert turns == [g, pl, d, r1, g, d, g, d, r1, g, pl, d]
    for optimizer, lr, every in ((trainer.optimizers[0], 0.0025, 3), (trainer.optimizers[1], 0.002, 2)):
        c = every / (every + 1)
        group = optimizer.param_groups[0]
        assert (group["lr"], *group["betas"]) == pytest.approx((lr * c, 0.0, 0.99**c))
    settled = Trainer(small(path_length=0.0, r1=0.0), data=digits).optimizers
    assert [o.param_groups[0]["betas"][1] for o in settled] == [0.99, 0.99]


def test_r1_is_taken_at_the_images_before_augmentation(digits):
    trainer = Trainer(small(augment_policy="contrast", augment_p=1.0, r1=2.0, mbstd_group=0), data=digits)
    step, real = trainer.adversarial_step, trainer.feed.next()
    drawn = step.streams["augmentation"].get_state()
    gradients = []
    step._descend = lambda network, optimizer, loss: gradients.extend(
        torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    )
    step.regularise_critic(real, None)
    step.streams["augmentation"].set_state(drawn)
    x = real.clone().requires_grad_()
    logits = trainer.critic(step.augment(x, generator=step.streams["augmentation"]), None)
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    penalty = 2.0 / 2 * g.square().sum() / len(real)
    wanted = torch.autograd.grad(2 * penalty, list(trainer.critic.parameters()), allow_unused=True)
    for got, want in zip(gradients, wanted, strict=True):
        if got is not None and want is not None:
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(step.figures()["r1"], penalty.detach(), rtol=1e-4, atol=0)


def test_styles_are_mixed_from_a_random_layer_on(digits):
    trainer = Trainer(small(style_mixing=0.7, batch=2), data=digits)
    styles = trainer.adversarial_step._styles(2000, None)
    same = (styles == styles[:, :1]).all(2).sum(1)  # layers with the first one's style
    layers = styles.shape[1]
    assert float((same == layers).float().mean()) == pytest.approx(0.3, abs=0.04)
    for k in range(1, layers):
        assert float((same == k).float().mean()) == pytest.approx(0.7 / (layers - 1), abs=0.04)
    for a, b in zip(styles, same.tolist(), strict=True):
        assert bool((a[b:] == a[-1]).all())


WORKER = """
import sys
from gan_fast import recipes
from gan_fast.training import Trainer
trainer = Trainer(recipes.get("stylegan2", **eval(sys.argv[2])), out=sys.argv[1])
assert trainer.world.size == 2
trainer.fit()
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Without the critic's minibatch deviation, the distance between both ends is below 1e-4 of the way they went
    (measured: 5e-6), and so are p and the mean path length.
    """
    recipe = small(steps=20, mbstd_group=0, augment_policy="bgc", evaluation_samples=0)
    start = Trainer(recipe)
    begin = {"generator": start.generator.state_dict(), "critic": start.critic.state_dict()}
    begin = {name: {k: v.clone() for k, v in state.items()} for name, state in begin.items()}
    Trainer(recipe, out=tmp_path / "one").fit()
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    settings = {k: v for k, v in recipe.to_dict().items() if k != "out"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, str(script), str(tmp_path / "two"), repr(settings)], env=environment, check=True, timeout=240
    )
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / name)) for name in ("one", "two"))
    for name in ("augmentation_p", "path_length_mean", "augmentation_r"):
        a, b = one.tensors["random"][name], two.tensors["random"][name]
        assert float(a) != 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=0)
    for network in ("generator", "critic"):
        first, second, origin = one.tensors[network], two.tensors[network], begin[network]
        gone = sum((first[k] - origin[k]).double().square().sum() for k in origin)
        apart = sum((first[k] - second[k]).double().square().sum() for k in origin)
        assert apart.sqrt() < 1e-4 * gone.sqrt(), f"{network}: {float(apart.sqrt() / gone.sqrt())}"


def test_auto_and_the_papers_rows():
    """The heuristics of StyleGAN2-ADA's `auto`, and rows that a flag overrides."""
    auto = recipes.get("stylegan2").for_data((3, 256, 256), 8)
    got = (auto.batch, auto.mbstd_group, auto.channel_base, auto.lr_g, auto.r1, auto.ema_kimg, auto.mapping_layers)
    assert got == (64, 4, 16384, 0.0025, pytest.approx(0.2048), 20.0, 2)
    large = recipes.get("stylegan2").for_data((3, 1024, 1024), 8)
    assert (large.batch, large.channel_base, large.lr_d) == (32, 32768, 0.002)
    for name, batch, gamma, ema in [
        ("stylegan2", 32, 10.0, 10.0),
        ("paper256", 64, 1.0, 20.0),
        ("paper512", 64, 0.5, 20.0),
        ("paper1024", 32, 2.0, 10.0),
        ("cifar", 64, 0.01, 500.0),
    ]:
        row = recipes.get("stylegan2", config=name).for_data((3, 32, 32))
        assert (row.batch, row.r1, row.ema_kimg) == (batch, gamma, ema)
    cifar = recipes.get("stylegan2", config="cifar", r1=3.0).for_data((3, 32, 32))
    assert (cifar.r1, cifar.path_length, cifar.style_mixing, cifar.critic_architecture) == (3.0, 0.0, 0.0, "orig")
    assert all(getattr(cifar, f.name) is not None for f in dataclasses.fields(cifar) if f.name in ("batch", "lr_g"))
    assert recipes.get("stylegan2", config="cifar").budget.images == 100e6
    # Published class-conditional critics have 8 mapping layers, whatever the generator has.
    networks = cifar.networks((3, 32, 32), 10)[1]
    assert (networks["mapping_layers"], networks["critic_mapping_layers"]) == (2, 8)


def test_every_field_is_a_flag_with_its_help(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(StyleGAN2, ["--help"], "train")
    assert stop.value.code == 0
    words = capsys.readouterr().out
    for field in dataclasses.fields(StyleGAN2):
        assert "--" + field.name.replace("_", "-") in words, field.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style_mixing": 1.5}, r"style_mixing must be in \[0, 1\], got 1.5"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\)"),
        ({"r1_every": 0}, "r1_every must be greater than 0"),
        ({"updates": "simultaneous"}, "use --updates alternating"),
        ({"augment": "diffaugment", "augment_p": 0.2}, "augment_p is ADA's, and augment is 'diffaugment'"),
        ({"augment": "none", "augment_policy": "bgc"}, "augment_policy is given and augment is 'none'"),
        ({"augment_policy": "bgcx"}, "ADA has no transform 'bgcx'"),
        ({"augment": "diffaugment", "augment_policy": "bgc"}, "DiffAugment has no transform 'bgc'"),
        ({"init_from": "/nowhere"}, "init_from is /nowhere, which does not exist"),
        ({"precision": "fp16"}, "precision fp16 is for CUDA devices, got cpu"),
        ({"data": "grid25"}, "stylegan2 is for images and the data holds points"),
        ({"resolution": 128}, "config tiny is for up to 64 pixels, got 128"),
        ({"channels": 3, "generator_architecture": "skip", "freeze_layers": -1}, "freeze_layers must be 0 or greater"),
    ],
)
def test_refusals_before_the_first_step(settings, message):
    with pytest.raises(ValueError, match=message):
        Trainer(small(**settings))


def test_classes_are_refused_where_there_are_none(tmp_path):
    images = data.ImageDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="images has no classes to train on: put the images of each class in a folder"):
        Trainer(small(conditional=True), data=images)
    with pytest.raises(ValueError, match="labels must stand second"):
        Trainer(small(conditional=True), data=data.load("digits")).step(torch.zeros(4, 1, 8, 8))


def test_a_run_begins_from_converted_weights(digits, tmp_path):
    """G, its average and the critic each from its own file; a run that goes on needs the files no more."""
    trainer = Trainer(small(), data=digits)
    train(trainer, 2)
    folder = tmp_path / "weights"
    networks = {"G": trainer.generator, "D": trainer.critic, "G_ema": trainer.ema.module}
    for name, network in networks.items():
        stylegan2.weights.save(folder / f"{name}.safetensors", network)
    other = Trainer(small(init_from=str(folder), seed=9), data=digits)
    for mine, theirs in ((other.generator, "G"), (other.critic, "D"), (other.ema.module, "G_ema")):
        for key, value in mine.state_dict().items():
            assert torch.equal(value, networks[theirs].state_dict()[key]), (theirs, key)
    assert (other.recipe.ada_kimg, other.recipe.ema_ramp) == (0.5, 0.0)
    assert StyleGAN2(init_from=str(folder)).for_data((1, 8, 8)).ada_kimg == 100
    other.save(tmp_path / "run")
    hidden = folder.rename(tmp_path / "elsewhere")
    Trainer.resume(tmp_path / "run", data=digits)
    hidden.rename(folder)
    stylegan2.weights.save(folder / "G_ema.safetensors", trainer.generator)
    with pytest.raises(ValueError, match=r"do not fit this run's networks: .* use the same resolution"):
        Trainer(small(init_from=str(folder / "G_ema.safetensors"), w_dim=32), data=digits)


def test_samples_of_a_checkpoint_belong_to_their_seeds(digits, tmp_path):
    trainer = Trainer(small(conditional=True), data=digits)
    train(trainer, 1)
    trainer.save(tmp_path / "one")
    sampler = Sampler(tmp_path / "one")
    alone, many = sampler.samples([3]), sampler.samples(range(5))
    torch.testing.assert_close(many[3:4], alone, rtol=0, atol=1e-5)
    assert float(many.abs().max()) <= 1
    torch.testing.assert_close(sampler.samples([3], classes=[3]), alone)
    assert not torch.allclose(sampler.samples([3], classes=[4]), alone)


def test_half_precision_is_set_after_the_networks_are_built(digits):
    trainer = Trainer(small(precision="bf16"), data=digits)
    blocks = [m.low_precision for m in trainer.generator.modules() if isinstance(m, stylegan2.layers.Precision)]
    assert "bf16" in blocks and "fp16" not in blocks
