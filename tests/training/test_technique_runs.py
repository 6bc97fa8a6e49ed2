"""Techniques as fields of recipes: they resume bit for bit, refuse what cannot work, and run in several processes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading

import pytest
import torch

from gan_fast import _average, data, recipes
from gan_fast.training import Latents, Trainer, checkpoint, distributed
from gan_fast.training.distributed import World
from gan_fast.training.step import Penalties
from training.adversarial_steps import CPU, batch, make_step, networks

SMALL = {"batch": 16, "latent_dim": 4, "base_channels": 4, "width": 16, "threads": 1, "device": "cpu", "quiet": True}
GENTLE = {"instance_noise": 0.2, "instance_noise_kimg": 0.1, "top_k": 0.5, "top_k_kimg": 0.1, "feature_matching": 1.0}
GENTLE |= {"lecam": 0.1, "zcr_critic": 5.0, "zcr_generator": 0.5, "packing": 2}
CASES = {
    "all": ("dcgan", "digits", {**GENTLE, "bcr": 10.0, "minibatch_stddev": 4, "minibatch_discrimination": 3}),
    "bf16": ("dcgan", "digits", {**GENTLE, "bcr": 10.0, "precision": "bf16", "minibatch_stddev": 4}),
    "unrolled": (
        "dcgan",
        "digits",
        {"unrolled_steps": 2, "instance_noise": 0.1, "feature_matching": 1.0, "lecam": 0.1},
    ),
    "unrolled bf16": ("wgan", "digits", {"unrolled_steps": 1, "critic_steps": 1, "precision": "bf16"}),
    "points": ("wgan_gp", "grid25", {**GENTLE, "critic_steps": 2, "minibatch_stddev": 4}),
    "r3gan": ("r3gan", "digits", {**GENTLE, "group_size": 4, "feature_matching": 0.1}),
    "simultaneous": ("r3gan", "grid25", {"updates": "simultaneous", "packing": 2, "lecam": 0.1, "instance_noise": 0.2}),
}


@pytest.fixture(scope="module")
def sets():
    return {name: data.load(name) for name in ("digits", "grid25")}


@pytest.mark.parametrize("case", CASES)
def test_resume_is_bit_for_bit(sets, tmp_path, case):
    name, of, settings = CASES[case]
    threads = torch.get_num_threads()
    recipe = recipes.get(name, **{"precision": "fp32", **SMALL, **settings})
    straight, first = (Trainer(recipe, data=sets[of]) for _ in range(2))
    for _ in range(6):
        straight.step(straight.feed.next())
    for _ in range(3):
        first.step(first.feed.next())
    first.save(tmp_path / "half")
    second = Trainer.resume(tmp_path / "half", data=sets[of])
    for _ in range(3):
        stats = second.step(second.feed.next())
    assert torch.isfinite(torch.stack([*stats.critic[:5], stats.generator_loss])).all()
    for one, two in zip(*([t.generator, t.critic, t.ema.module] for t in (straight, second)), strict=True):
        other = two.state_dict()
        assert all(torch.equal(value, other[key]) for key, value in one.state_dict().items())
    for key, value in straight.adversarial_step.state().items():
        assert torch.equal(value, second.adversarial_step.state()[key])
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dcgan", {"top_k": 0.0}, r"top_k must be a share of the batch in \(0, 1\], got 0.0"),
        ("dcgan", {"packing": 0}, "packing must be greater than 0"),
        ("dcgan", {"lecam": -1.0}, "lecam must be 0 or greater"),
        ("dcgan", {"lecam_decay": 1.0}, r"lecam_decay must be in \[0, 1\)"),
        ("dcgan", {"adversarial_weight": 0.0}, "the generator would have no loss"),
        ("dcgan", {"bcr": 1.0, "bcr_policy": "mirror"}, "no transform 'mirror'"),
        ("dcgan", {"top_k": 0.5, "loss": "relativistic_average"}, "with the whole batch: use relativistic"),
        ("dcgan", {"top_k": 0.5, "updates": "simultaneous"}, "top_k changes the generator's own pass"),
        ("r3gan", {"unrolled_steps": 1, "updates": "simultaneous"}, "unrolled_steps changes the generator's own pass"),
        ("wgan_gp", {"unrolled_steps": 1}, "a gp_weight of 0"),
        ("dcgan", {"unrolled_steps": 1, "bcr": 10.0}, "unrolled_steps do not follow bcr"),
        ("wgan_gp", {"minibatch_discrimination": 5}, "use minibatch_stddev or packing"),
    ],
)
def test_what_cannot_work_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        recipes.get(name, **settings)


def test_what_does_not_fit_the_data_is_refused(sets):
    with pytest.raises(ValueError, match="multiple of 3 samples for each of 1"):
        Trainer(recipes.get("dcgan", **SMALL, packing=3), data=sets["digits"])
    with pytest.raises(ValueError, match="the data holds points: use zcr_critic"):
        Trainer(recipes.get("dcgan", **SMALL, bcr=10.0), data=sets["grid25"])


class Ranks:
    """`torch.distributed`'s collectives between two threads."""

    ReduceOp = torch.distributed.ReduceOp

    def __init__(self):
        self.barrier, self.slots, self.own = threading.Barrier(2, timeout=120), [None, None], threading.local()

    def exchange(self, value):
        self.slots[self.own.rank] = value.detach().clone()
        self.barrier.wait()
        everyone = [slot.clone() for slot in self.slots]
        self.barrier.wait()
        return everyone

    def all_reduce(self, value, op=None, group=None):
        value.copy_(sum(self.exchange(value)))

    def all_gather(self, parts, value):
        for part, theirs in zip(parts, self.exchange(value), strict=True):
            part.copy_(theirs)

    def get_world_size(self, group=None):
        return 2


class DoubleLatents(Latents):
    def draw(self, count):
        return super().draw(count).double()


FULL = {"instance_noise": 0.3, "packing": 2, "lecam": 0.2, "bcr": 2.0, "zcr_critic": 1.0, "zcr_noise": 0.3}
FULL |= {"top_k": 0.5, "top_k_images": 40.0, "feature_matching": 1.0, "zcr_generator": 0.5}
TWO = {
    "all": (FULL, {}),
    "unrolled": ({"unrolled_steps": 2, "feature_matching": 1.0, "instance_noise": 0.1, "lecam": 0.2}, {"r1": 0.3}),
    "simultaneous": ({"packing": 2, "lecam": 0.2, "bcr": 2.0}, {"r1": 0.3}),
}


@pytest.mark.parametrize("case", TWO)
def test_two_ranks_do_what_one_process_does(monkeypatch, case):
    """Four steps in float64, two threads with half of each batch beside one with all of it."""
    own, penalties = TWO[case]
    ranks = Ranks()
    monkeypatch.setattr(distributed, "dist", ranks)
    monkeypatch.setattr(_average, "dist", ranks)
    shape = (1, 8, 8)
    batches = [batch(shape, seed=seed)[0] for seed in range(4)]

    def train(world, ends):
        ranks.own.rank = world.rank
        pair = copy.deepcopy(start)
        updates = "simultaneous" if case == "simultaneous" else "alternating"
        given = {"techniques": own, "penalties": Penalties(**penalties), "world": world, "updates": updates}
        step = make_step(*pair, [], **given)
        step.latents = DoubleLatents(4, 9, CPU, world)
        for number, real in enumerate(batches):
            step.techniques.follow(8 * number)
            step(real.chunk(world.size)[world.rank], number + 1)
        ends[world] = [p.detach() for network in pair for p in network.parameters()]

    start = networks(shape, packing=own.get("packing", 1))
    ends = {}
    train(World(), ends)
    threads = [threading.Thread(target=train, args=(World(rank, 2), ends)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, second, one in zip(ends[World(0, 2)], ends[World(1, 2)], ends[World()], strict=True):
        # Instance noise and LeCam's averages are float32.
        torch.testing.assert_close(first, one, rtol=1e-5, atol=1e-7)
        assert torch.equal(first, second)


WORKER = """
import sys
from gan_fast import recipes
from gan_fast.training import Trainer
trainer = Trainer(recipes.get(sys.argv[2], **eval(sys.argv[3])), out=sys.argv[1])
assert trainer.world.size == 2
trainer.fit()
"""
SHARED = {
    "all": ("dcgan", {**GENTLE, "bcr": 10.0, "feature_matching": 0.1}),
    "simultaneous": ("dcgan", {"packing": 2, "lecam": 0.1, "bcr": 10.0, "r1": 0.5, "updates": "simultaneous"}),
    "unrolled": ("dcgan", {"unrolled_steps": 2, "instance_noise": 0.1, "feature_matching": 0.1, "r1": 0.5}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SHARED)
def test_two_processes_equal_one(tmp_path, case):
    """The distance between both ends is less than 1e-4 of the way they went."""
    name, own = SHARED[case]
    settings = {**SMALL, "steps": 12, "precision": "fp32", "critic_norm": "spectral", "generator_norm": "none", **own}
    start = Trainer(recipes.get(name, **settings))
    begin = {"generator": start.generator.state_dict(), "critic": start.critic.state_dict()}
    Trainer(recipes.get(name, **settings), out=tmp_path / "one").fit()
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, str(script), str(tmp_path / "two"), name, repr(settings)], env=environment, check=True, timeout=240
    )
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / which)) for which in ("one", "two"))
    for network, origin in begin.items():
        first, second = one.tensors[network], two.tensors[network]
        gone = sum((first[k] - origin[k]).double().square().sum() for k in origin)
        apart = sum((first[k] - second[k]).double().square().sum() for k in origin)
        assert apart.sqrt() < 1e-4 * gone.sqrt(), f"{network}: {float(apart.sqrt() / gone.sqrt())}"
