"""cyclegan and pix2pix: the losses as written, the pool, state, several processes, other sizes, the command line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from gan_fast import data, models, recipes
from gan_fast.augment import DiffAugment
from gan_fast.cli import main
from gan_fast.cli.parse import parse
from gan_fast.metrics import evaluate_translation
from gan_fast.models.pix2pix import UnetGenerator, default_depth
from gan_fast.recipes import CycleGAN, Pix2Pix
from gan_fast.recipes.cyclegan_step import ImagePool
from gan_fast.training import Trainer, checkpoint
from gan_fast.training.distributed import World
from gan_fast.training.translation import translate
from support.reading_back import NothingReadBack

SMALL = {"base_channels": 4, "critic_channels": 4, "batch": 4, "steps": 20, "threads": 1, "device": "cpu"}
SMALL |= {"quiet": True, "precision": "fp32", "evaluation_samples": 0}
BF16 = {"precision": "bf16", "flip": True, "channels_last": True}
# What cyclegan has for small sets, and for colours that matter.
SMALL_SET = {"norm": "none", "critic_norm": "none", "r1": 2.0, "diffaugment": "color,translation"}


@pytest.fixture(scope="module", autouse=True)
def own_cache_and_threads(tmp_path_factory):
    threads, patch = torch.get_num_threads(), pytest.MonkeyPatch()
    patch.setenv("GAN_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pairs():
    return {name: data.load_pairs("digits-to-colour", aligned=name == "pix2pix") for name in ("cyclegan", "pix2pix")}


def small(name, **settings):
    own = {"blocks": 1, "pool": 6} if name == "cyclegan" else {}
    return recipes.get(name, **{**SMALL, **own, **settings})


def train(trainer, steps):
    for _ in range(steps):
        trainer.step(trainer.feed.next())


def everything(trainer):
    found = {}
    for name, module in (("G", trainer.generator), ("D", trainer.critic), ("ema", trainer.ema.module)):
        found |= {f"{name}.{k}": v.clone() for k, v in module.state_dict().items()}
    for name, optimizer in zip(("G", "D"), trainer.optimizers, strict=True):
        found |= {f"adam {name}.{k}": v.clone() for k, v in checkpoint.optimizer_tensors(optimizer).items()}
    step = trainer.adversarial_step
    found |= {f"stream {k}": v.get_state() for k, v in step.streams.items()}
    return found | {f"step {k}": v.clone() for k, v in step.state().items()}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cyclegan", {}),
        ("cyclegan", BF16),
        ("cyclegan", {**BF16, **SMALL_SET}),
        ("pix2pix", {}),
        ("pix2pix", BF16),
    ],
    ids=str,
)
def test_resume_is_bit_for_bit(pairs, tmp_path, name, settings):
    straight, first = (Trainer(small(name, **settings), data=pairs[name]) for _ in range(2))
    train(straight, 6)
    train(first, 3)
    first.recipe.preview(
        first.ema.module, pairs[name], first.feed.shape
    )  # what is drawn to be looked at must not move the run
    first.save(tmp_path / "half")
    torch.manual_seed(99)  # nothing may depend on torch's global generator
    second = Trainer.resume(tmp_path / "half", data=pairs[name])
    train(second, 3)
    one, two = everything(straight), everything(second)
    assert one.keys() == two.keys() and [k for k in one if not torch.equal(one[k], two[k])] == []
    assert second.feed.state_dict() == straight.feed.state_dict()
    start = everything(Trainer(small(name, **settings), data=pairs[name]))
    assert not [k for k in start if k.startswith(("G.", "D.", "ema.")) and torch.equal(start[k], two[k])]
    if name == "cyclegan":
        assert int(two["step pool_a_count"]) == 6 and bool(two["step pool_b"].flatten(1).any(1).all())


class Gradients(torch.optim.SGD):
    """Changes nothing, keeps the gradients."""

    def step(self, closure=None):
        self.kept = [p.grad.clone() for p in self.param_groups[0]["params"]]


def with_gradients_kept(trainer):
    step = trainer.adversarial_step
    for name, network in (("generator", trainer.generator), ("critic", trainer.critic)):
        setattr(step, f"{name}_optimizer", Gradients(network.parameters(), 0.0))
    return step


def close(optimizer, loss, network):
    for got, want in zip(optimizer.kept, torch.autograd.grad(loss, list(network.parameters())), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5 * float(want.abs().max()) + 1e-7)


def test_cyclegan_takes_the_gradients_of_its_formula(pairs):
    trainer = Trainer(small("cyclegan", cycle=7.0, identity=3.0, pool=0), data=pairs["cyclegan"])
    step, real = with_gradients_kept(trainer), trainer.feed.next()
    stats = step(real, 1)
    a, b = real[:, :3], real[:, 3:]
    G, F = trainer.generator.a_to_b, trainer.generator.b_to_a
    D_a, D_b = trainer.critic.of_a, trainer.critic.of_b
    cycle = (F(G(a)) - a).abs().mean() + (G(F(b)) - b).abs().mean()
    same = (G(b) - b).abs().mean() + (F(a) - a).abs().mean()
    loss = (D_b(G(a)) - 1).square().mean() + (D_a(F(b)) - 1).square().mean() + 7 * cycle + 3 * same
    torch.testing.assert_close(stats.generator_loss, loss.detach(), rtol=1e-5, atol=0)
    close(step.generator_optimizer, loss, trainer.generator)
    fake_a, fake_b = F(b).detach(), G(a).detach()
    d = sum((D(x) - 1).square().mean() + D(y).square().mean() for D, x, y in ((D_a, a, fake_a), (D_b, b, fake_b)))
    torch.testing.assert_close(stats.critic.loss, d.detach() / 2, rtol=1e-5, atol=0)
    close(step.critic_optimizer, d / 2, trainer.critic)


def test_cyclegans_critics_see_augmented_pictures_and_r1(pairs):
    """Their gradient, with T drawn in turn for G's two translations and then for a, b and what was made of b and a."""
    settings = {"r1": 3.0, "diffaugment": "color,translation", "norm": "none", "pool": 0}
    trainer = Trainer(small("cyclegan", **settings), data=pairs["cyclegan"])
    step, real = with_gradients_kept(trainer), trainer.feed.next()
    before = step.streams["augmentation"].get_state()
    stats = step(real, 1)
    assert not any(isinstance(m, torch.nn.InstanceNorm2d) for m in trainer.generator.modules())
    stream = torch.Generator()
    stream.set_state(before)
    augment = DiffAugment("color,translation")
    G, F = trainer.generator.a_to_b, trainer.generator.b_to_a
    D_a, D_b = trainer.critic.of_a, trainer.critic.of_b
    a, b = real[:, :3], real[:, 3:]
    fake_b, fake_a = G(a), F(b)
    cycle = (F(fake_b) - a).abs().mean() + (G(fake_a) - b).abs().mean()
    same = (G(b) - b).abs().mean() + (F(a) - a).abs().mean()
    loss = (D_b(augment(fake_b, generator=stream)) - 1).square().mean()
    loss = loss + (D_a(augment(fake_a, generator=stream)) - 1).square().mean() + 10 * cycle + 5 * same
    torch.testing.assert_close(stats.generator_loss, loss.detach(), rtol=1e-5, atol=0)
    close(step.generator_optimizer, loss, trainer.generator)
    pictures = (a, b, fake_a.detach(), fake_b.detach())
    a, b, fake_a, fake_b = (augment(x, generator=stream).requires_grad_() for x in pictures)
    d = torch.zeros(())
    for D, x, y in ((D_a, a, fake_a), (D_b, b, fake_b)):
        d = d + ((D(x) - 1).square().mean() + D(y).square().mean()) / 2
        (slope,) = torch.autograd.grad(D(x).mean((1, 2, 3)).sum(), x, create_graph=True)
        d = d + 1.5 * slope.square().flatten(1).sum(1).mean()
    close(step.critic_optimizer, d, trainer.critic)


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_pix2pix_takes_the_gradients_of_its_formula(pairs, direction):
    trainer = Trainer(small("pix2pix", l1=20.0, direction=direction, dropout=False), data=pairs["pix2pix"])
    step, real = with_gradients_kept(trainer), trainer.feed.next()
    stats = step(real, 1)
    x, y = (real[:, :3], real[:, 3:]) if direction == "AtoB" else (real[:, 3:], real[:, :3])
    G, D = trainer.generator, trainer.critic
    made = G(x)
    scored = D(torch.cat([x, made], 1)).sigmoid()
    loss = -scored.log().mean() + 20 * (y - made).abs().mean()
    torch.testing.assert_close(stats.generator_loss, loss.detach(), rtol=1e-5, atol=0)
    close(step.generator_optimizer, loss, G)
    fake = D(torch.cat([x, made.detach()], 1)).sigmoid()
    d = (-D(torch.cat([x, y], 1)).sigmoid().log().mean() - (1 - fake).log().mean()) / 2
    close(step.critic_optimizer, d, D)


def test_dropout_is_drawn_for_each_picture_of_the_whole_batch():
    from gan_fast.augment.draws import Draws

    network = UnetGenerator(3, 4, 3)
    x = torch.randn(4, 3, 8, 8)

    def made(part, share):
        return network(x[part], Draws(2 if share[1] == 2 else 4, x.device, torch.Generator().manual_seed(3), share))

    whole = made(slice(None), (0, 1))
    torch.testing.assert_close(torch.cat([made(slice(2), (0, 2)), made(slice(2, 4), (1, 2))]), whole)
    assert not torch.allclose(whole, network(x))


def test_the_pool_gives_back_new_pictures_until_it_is_full_and_then_half_of_the_time_older_ones():
    pool = ImagePool(50, (1, 1, 1), torch.Generator().manual_seed(0), torch.device("cpu"), World())
    given = torch.arange(4050.0).view(-1, 1, 1, 1)
    back = torch.cat([pool.exchange(part) for part in given.split(3)]).flatten()
    assert torch.equal(back[:50], given[:50].flatten())
    older = (back[50:] < given[50:].flatten()).float()
    assert float(older.mean()) == pytest.approx(0.5, abs=0.03)
    # A slot is drawn anew every 100 pictures on average, so what comes out is about that old.
    age = (given[50:].flatten() - back[50:])[older.bool()]
    assert float(age[500:].mean()) == pytest.approx(100, rel=0.15)
    shown = back[50:][older.bool()]
    assert len(shown.unique()) == len(shown), "what was given back is no longer in the pool"


@pytest.mark.parametrize(("name", "settings"), [("cyclegan", {}), ("cyclegan", SMALL_SET), ("pix2pix", {})], ids=str)
def test_a_step_reads_nothing_back(pairs, name, settings):
    trainer = Trainer(small(name, **settings), data=pairs[name])
    batches = [trainer.feed.next() for _ in range(3)]
    with NothingReadBack():
        for batch in batches:
            trainer.step(batch)


def test_learning_rate_is_constant_and_then_falls_to_zero(pairs):
    recipe = small("pix2pix", lr=0.1, steps=10)
    assert [recipe.lr_at(n) for n in (0, 20, 30, 40, 50)] == pytest.approx([0.1, 0.1, 0.05, 0.0, 0.0])
    assert recipes.get("cyclegan", lr=0.1, kimg=1, seconds=5, decay=0.25).lr_at(875) == pytest.approx(0.05)
    assert recipes.get("cyclegan", lr=0.1, seconds=5, decay=0).lr_at(10**9) == 0.1
    trainer = Trainer(recipe, data=pairs["pix2pix"])
    train(trainer, 8)
    assert [g["lr"] for o in trainer.optimizers for g in o.param_groups] == pytest.approx([0.06, 0.06])


def test_defaults_are_the_papers():
    cycle, pix = recipes.get("cyclegan"), recipes.get("pix2pix")
    assert (cycle.cycle, cycle.identity, cycle.pool, cycle.lr, cycle.beta1, cycle.batch) == (10, 5, 50, 2e-4, 0.5, 1)
    assert (pix.l1, pix.lr, pix.beta1, pix.batch) == (100, 2e-4, 0.5, 1)
    for side, blocks in ((128, 6), (256, 9)):
        settings = cycle.for_data((6, side, side)).networks((6, side, side))[1]
        assert (settings["blocks"], settings["downs"], settings["critic_layers"]) == (blocks, 2, 3)
    assert pix.for_data((6, 256, 256)).depth == 8 and default_depth(96, 64) == 5
    # A 70x70 patch: the square of pixels that move one logit.
    critic = Trainer(small("pix2pix", critic_layers=3), data=random_pairs(96, 96)).critic
    x = torch.zeros(1, 6, 96, 96, requires_grad=True)
    plain = torch.nn.Sequential(*[m for m in critic.layers if not isinstance(m, torch.nn.InstanceNorm2d)])
    logits = plain(x)
    (g,) = torch.autograd.grad(logits[0, 0, 5, 5], x)
    assert [int(g[0].abs().amax((0, d)).count_nonzero()) for d in (1, 2)] == [70, 70]


def test_what_is_not_chosen_is_not_in_a_checkpoints_networks():
    """So that runs go on which were saved before there was a choice."""
    recipe = recipes.get("cyclegan").for_data((6, 32, 32))
    sizes = {"channels", "base_channels", "critic_channels", "critic_layers", "blocks", "downs", "kernel"}
    assert recipe.networks((6, 32, 32))[1].keys() == sizes


@pytest.mark.parametrize("blocks", [1, 9])
def test_without_norms_depth_does_not_saturate_the_generator(blocks):
    """A deviation of 0.5 and 0.4 before the tanh for noise of 0.6; without the start at 0 nine blocks have 61."""
    torch.manual_seed(0)
    sizes = {"base_channels": 16, "blocks": blocks, "downs": 2}
    generator, critic = models.build("cyclegan", **sizes, norm="none", critic_norm="none")
    x = torch.empty(4, 3, 32, 32).uniform_(-1, 1)
    with torch.no_grad():
        assert 0.2 < float(generator.a_to_b.layers[:-1](x).std()) < 1.5
        assert 0.03 < float(critic.of_a(x).std()) < 2


def random_pairs(height, width, count=4):
    def side(seed):
        shape = (count, 3, height, width)
        return data.ImageDataset(torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).byte())

    return data.PairDataset(side(0), side(1), aligned=True)


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix"])
def test_pictures_need_not_be_square(name):
    pairs = random_pairs(16, 24)
    trainer = Trainer(small(name), data=pairs)
    train(trainer, 2)
    shown, _, columns = trainer.recipe.preview(trainer.ema.module, pairs, trainer.feed.shape)
    assert shown.shape[1:] == (3, 16, 24) and columns == (6 if name == "cyclegan" else 3)
    assert len(shown) == 4 * columns
    report = evaluate_translation(pairs, lambda x, direction: (x, x), trainer.recipe.directions(), count=4)
    figures = report.directions["AtoB"]
    assert (figures.style_ratio, figures.change, figures.cycle_error, figures.agreement) == (1.0, 0.0, 0.0, None)
    assert figures.answer_error == pytest.approx(1 / 3, abs=0.02), "of two uniform numbers"
    with pytest.raises(ValueError, match=r"must be \[6, 16, 24\] as those at first, got \[6, 24, 16\]"):
        trainer.step(torch.zeros(4, 6, 24, 16))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cyclegan", {"updates": "simultaneous"}, "cyclegan has alternating updates only"),
        ("cyclegan", {"steps": None, "seconds": 5}, "--seconds alone does not tell: give --kimg"),
        ("cyclegan", {"height": 8}, "give height and width, or neither"),
        ("cyclegan", {"resolution": 8, "height": 16, "width": 16}, "give one"),
        ("cyclegan", {"downs": 2}, "halves 2 times needs sides that are multiples of 4, from 16; got 8x8"),
        ("cyclegan", {"critic_layers": 3}, "too small for a critic of 3 layers"),
        ("cyclegan", {"data": "digits"}, "give the other as --data-b"),
        ("cyclegan", {"diffaugment": "colour"}, "DiffAugment"),
        ("cyclegan", {"norm": "batch"}, "norm must be"),
        ("cyclegan", {"r1": -1.0}, "r1 must be 0 or greater"),
        ("pix2pix", {"depth": 4}, "4 times only sides that are multiples of 16; got 8x8"),
        ("pix2pix", {"decay": 1.5}, r"decay must be in \[0, 1\]"),
        ("pix2pix", {"l1": -1.0}, "l1 must be 0 or greater"),
        ("dcgan", {"data": "digits-to-colour"}, "for the recipes cyclegan and pix2pix"),
    ],
)
def test_refusals_before_the_first_step(name, settings, message):
    with pytest.raises(ValueError, match=message):
        Trainer(recipes.get("dcgan", **settings) if name == "dcgan" else small(name, **settings))


def test_other_data_is_refused():
    with pytest.raises(ValueError, match=r"two kinds of pictures.*has \[1, 8, 8\]: give a gan_fast.data.PairDataset"):
        Trainer(small("cyclegan"), data=data.load("digits"))
    images = torch.zeros(4, 3, 8, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"dcgan is for square images and the data given has \[3, 8, 16\]"):
        Trainer(recipes.get("dcgan"), data=data.ImageDataset(images))


@pytest.mark.parametrize("kind", [CycleGAN, Pix2Pix])
def test_every_field_is_a_flag_with_its_help(capsys, kind):
    with pytest.raises(SystemExit) as stop:
        parse(kind, ["--help"], "train")
    assert stop.value.code == 0
    words = capsys.readouterr().out
    for field in dataclasses.fields(kind):
        assert "--" + field.name.replace("_", "-") in words, field.name


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, size in (("testA/a.jpg", (20, 13)), ("testA/more/b.png", (18, 40)), ("testB/c.png", (16, 16))):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 10, 200)).save(path)
    (tmp_path / "in" / "testA" / "broken.png").write_text("no")
    quick = ["--steps", "2", "--base-channels", "4", "--critic-channels", "4", "--threads", "1", "--device", "cpu"]
    command = ["train", "--recipe", "cyclegan", "--blocks", "1", "--downs", "1", *quick, "--batch", "4"]
    assert main([*command, "--quiet", "--evaluation-samples", "0"]) == 0
    out = capsys.readouterr().out
    assert "719 images of A and 719 of B, 3x8x8" in out and "gan-fast translate --run" in out
    run = tmp_path / "runs" / "0001-cyclegan-digits-to-colour"
    assert (run / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert {"adversarial", "cycle", "identity"} <= json.loads((run / "log.jsonl").read_text().splitlines()[-1]).keys()

    assert main(["translate", "--count", "3"]) == 0
    assert sorted(p.name for p in (tmp_path / "translated").iterdir()) == ["AtoB", "AtoB.png", "BtoA", "BtoA.png"]
    assert len(list((tmp_path / "translated" / "BtoA").iterdir())) == 3
    capsys.readouterr()
    assert main(["translate", "--input", "in", "--out", "own", "--keep-size"]) == 0
    assert "skipped 1 not an image (such as broken.png)" in capsys.readouterr().out
    with Image.open("own/AtoB/a.png") as a, Image.open("own/AtoB/more/b.png") as b, Image.open("own/AtoB.png") as grid:
        assert a.size == (20, 12) and b.size == (18, 40)
        assert grid.width / grid.height == pytest.approx((3 * 9 - 1) / (2 * 9 - 1))
    assert main(["translate", "--input", "in/testA", "--direction", "BtoA", "--out", "back"]) == 0
    with Image.open("back/BtoA/a.png") as a:
        assert a.size == (8, 8)
    assert not (tmp_path / "back" / "AtoB").exists()

    for refused in (["generate"], ["interpolate"]):
        assert main(refused) == 1
        assert "takes images, not seeds: use `gan-fast translate`" in capsys.readouterr().err
    assert main(["train", "--steps", "1", "--evaluation-samples", "0", "--quiet", "--out", "d", "--width", "4"]) == 0
    assert main(["translate", "--run", "d"]) == 1
    assert "holds a dcgan, whose generator takes no pictures" in capsys.readouterr().err


WORKER = """
import sys
from gan_fast import recipes
from gan_fast.training import Trainer
trainer = Trainer(recipes.get(sys.argv[2], **eval(sys.argv[3])), out=sys.argv[1])
assert trainer.world.size == 2
trainer.fit()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("cyclegan", {}), ("cyclegan", SMALL_SET), ("pix2pix", {})], ids=str)
def test_two_processes_equal_one(tmp_path, name, settings):
    """The distance between both ends is below 1e-4 of the way they went (measured: 3e-7 to 6e-7), and the pools
    are the same."""
    recipe = small(name, **settings)
    start = Trainer(recipe)
    begin = {"generator": start.generator.state_dict(), "critic": start.critic.state_dict()}
    begin = {network: {k: v.clone() for k, v in state.items()} for network, state in begin.items()}
    Trainer(recipe, out=tmp_path / "one").fit()
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    settings = {k: v for k, v in recipe.to_dict().items() if k != "out"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, str(script), str(tmp_path / "two"), name, repr(settings)], env=environment, check=True, timeout=240
    )
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / which)) for which in ("one", "two"))
    for network in ("generator", "critic"):
        first, second, origin = one.tensors[network], two.tensors[network], begin[network]
        gone = sum((first[k] - origin[k]).double().square().sum() for k in origin)
        apart = sum((first[k] - second[k]).double().square().sum() for k in origin)
        assert apart.sqrt() < 1e-4 * gone.sqrt(), f"{network}: {float(apart.sqrt() / gone.sqrt())}"
    if name == "cyclegan":
        torch.testing.assert_close(two.tensors["random"]["pool_a"], one.tensors["random"]["pool_a"], rtol=0, atol=1e-3)


LEARNS = {"base_channels": 16, "critic_channels": 16, "batch": 8, "lr": 1e-3, "device": "cpu", "threads": 1}


def test_pix2pix_learns_the_colours_in_150_steps(pairs):
    """Measured: the held-out outputs are within 4.6 to 4.7 % of the right ones over two seeds and fp32 and bf16; the
    inputs are 60.3 % from them, the bound is 7 %.

    Broken versions, same measure: targets of the next pair 10.7 %, no L1 12.0 %, input and output exchanged 29.6 %.
    """
    trainer = Trainer(recipes.get("pix2pix", precision="fp32", steps=150, **LEARNS), data=pairs["pix2pix"])
    train(trainer, 150)
    x, right = (side.float_batch(torch.arange(359)) for side in (trainer.data.held_out.a, trainer.data.held_out.b))
    assert float((translate(trainer.ema.module, x, "AtoB") - right).abs().mean()) / 2 < 0.07


@pytest.mark.slow
def test_cyclegan_keeps_the_digit_and_reaches_the_colours(pairs):
    """Measured by the command line with these settings, seed 0: 99.2 and 99.7 % of one class, style ratios of 0.006 and
    0.007. With 7x7 first and last convolutions, twice the steps and half the rate: 15 and 11 % of one class.
    """
    trainer = Trainer(recipes.get("cyclegan", precision="fp32", steps=1000, blocks=2, **LEARNS), data=pairs["cyclegan"])
    train(trainer, 1000)

    def both(x, direction):
        return translate(trainer.ema.module, x, direction), None

    for figures in evaluate_translation(pairs["cyclegan"], both, ("AtoB", "BtoA"), count=359).directions.values():
        assert figures.agreement > 0.9 and figures.style_ratio < 1 / 3 and figures.change > 0.4, figures
