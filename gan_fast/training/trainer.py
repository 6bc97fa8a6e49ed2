"""The loop around a step: data in, two networks trained, an average kept, everything saved.

for each batch x:   step(x);  ema.update();     now and then: read losses, draw pictures, save
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import gan_fast
from gan_fast import models
from gan_fast.training import checkpoint, distributed, feed, folder, machine, progress
from gan_fast.training.ema import EMA
from gan_fast.training.interrupt import interrupts
from gan_fast.training.journal import Journal, Reading
from gan_fast.training.recipe import Recipe
from gan_fast.training.sampling import sample
from gan_fast.training.step import Latents, Players, StepStats


class NonFiniteError(RuntimeError):
    """Losses or weights became infinite or NaN: nothing of that was saved."""


class FitResult(NamedTuple):
    """How `fit` ended. reason: "finished" (the budget is used) or "interrupted" (Ctrl-C or SIGTERM)."""

    reason: str
    step: int
    images: int
    seconds: float
    run: Path

    def lines(self) -> list[str]:
        """Where everything is and how to go on."""
        run = self.run
        more = "" if self.reason == "interrupted" else f" --kimg {math.ceil(self.images / 500)}"
        return [
            f"{self.reason} after {self.step:,} steps, {self.images / 1000:,.0f} kimg, {progress.clock(self.seconds)}",
            f"  samples      {run / 'samples.png'}",
            f"  losses       {run / 'losses.png'}",
            f"  checkpoint   {run / 'checkpoints' / f'{self.step:09d}'}",
            f"  tensorboard  tensorboard --logdir {run / 'tensorboard'}",
            f"  more images  gan-fast generate --run {run}",
            f"  go on with   gan-fast resume {run}{more}",
        ]


class Trainer:
    """Trains a recipe on data.

        trainer = Trainer(recipe, data=dataset_or_loader, out="runs/a")
        trainer.fit()

    or, inside a loop of one's own, `stats = trainer.step(batch)` and `trainer.save(path)`.

    Args:
        recipe: from `gan_fast.recipes.get`.
        data: an `ImageDataset`, a `PointDataset`, a `SoundDataset`, a data set with len() and [], or an iterable of
            batches: images, float in [-1, 1] or bytes, `[N, C, H, H]`, points, float, `[N, D]`, or sounds, float,
            `[N, 1, T]`. Default: what `recipe.data` names.
        out: folder of the run. Default: `recipe.out`, else the next free one under runs/.

    Under `torchrun` each process makes its own Trainer; a data set is shared out, a loader must give each process its
    own part. Batch normalisation then uses the statistics of its process's
    share of the batch, and the first process's running statistics are saved; with `critic_norm` other than batch and
    `generator_norm="none"` the processes together do what one would do alone, up to rounding.

    Raises ValueError for settings that do not fit together, `gan_fast.data.DataError` for data that cannot be had.
    """

    def __init__(self, recipe: Recipe, data: Any = None, out: str | Path | None = None) -> None:
        device_type = machine.choose_device(recipe.device).type
        self.world = distributed.join(device_type)
        device = machine.choose_device(recipe.device, self.world.local_rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        if data is None:
            data = recipe.load_data()
        self.data = data
        shape = feed.shape_of(data)
        recipe = self.recipe = recipe.for_data(shape, self.world.size)
        self.machine = machine.choose(device, recipe.precision, recipe.channels_last, points=len(shape) < 3)
        self.feed = feed.make(
            data,
            batch=recipe.batch,
            seed=recipe.seed,
            flip=recipe.flip,
            device=device,
            world=self.world,
            labels=recipe.wants_labels(),
        )
        self.out = out or recipe.out
        self.run: folder.RunFolder | None = None

        self.model, self.model_config = recipe.networks(shape, self.feed.classes)
        generator, critic = models.build(self.model, seed=recipe.seed, **self.model_config)
        self.generator = generator.to(device).to(memory_format=self.machine.memory_format)
        self.critic = critic.to(device).to(memory_format=self.machine.memory_format)
        self.ema = EMA(self.generator, recipe.ema_kimg * 1000, recipe.ema_ramp)
        recipe.prepare(self.generator, self.critic, self.ema.module, self.machine)
        self.optimizers = recipe.optimizers(self.generator, self.critic)
        self.latents = Latents(recipe.latent_size(shape), recipe.seed, device, self.world)
        self.adversarial_step = recipe.step(
            Players(self.generator, self.critic, self.optimizers, self.latents, self.machine, self.world)
        )
        self.steps = 0
        self.images = 0
        self.seconds = 0.0
        self._sums = torch.zeros(6, device=device)
        self._read_at = (0, 0, 0.0)

    def step(self, batch: Any) -> StepStats:
        """Train on a batch of real samples, `[N, C, H, H]`, `[N, D]` or `[N, 1, T]`: the critic, the generator, the
        average.

        Where the recipe wants labels the batch is (samples, labels), labels `[N]` whole numbers or `[N, classes]`.
        """
        real = feed.to_samples(batch, self.machine.device).to(memory_format=self.machine.memory_format)
        self.recipe.follow(self.images, self.adversarial_step, self.optimizers, self.ema)
        self.steps += 1
        self.images += len(real) * self.world.size
        self.ema.set_decay(self.images, len(real) * self.world.size)
        labels = None
        if self.feed.classes:
            labels = feed.to_one_hot(feed.label_of(batch), self.feed.classes, self.machine.device)
        stats = self.adversarial_step(real, self.steps, labels)
        self.ema.update()
        self._sums += torch.stack([*stats.critic[:5], stats.generator_loss])
        return stats

    def fit(self) -> FitResult:
        """Train until the budget is used or the process is asked to stop; always ends on a checkpoint.

        Raises NonFiniteError as soon as a reading finds a loss that is infinite or NaN; the last good checkpoint stays.
        """
        with contextlib.ExitStack() as stack:
            if self.recipe.threads is None:
                stack.enter_context(machine.few_threads(self.machine.device, self.feed.shape))
            return self._fit(stack)

    def _fit(self, stack: contextlib.ExitStack) -> FitResult:
        if self.run is None:
            self.run = self._start_run()
        main = self.world.is_main
        show = progress.make(self.recipe.quiet, main)
        before, began = self.seconds, time.perf_counter()
        saved_at, saved_step = began, self.steps
        show.say(f"{self.recipe.name} on {self._data_name()}, {self._sizes()}; {self.machine}")
        show.say(f"until {self.recipe.budget}; run folder {self.run.path}")
        journal = Journal(self.run, self.steps) if main else None
        request = stack.enter_context(interrupts())
        if journal is not None:
            stack.callback(journal.close)
        stack.callback(show.stop)
        show.start()
        if self.steps == 0:
            self._snapshot(journal)
        self._read_at = (self.steps, self.images, self.seconds)
        stop = self._fraction() >= 1
        while not stop:
            self.step(self.feed.next())
            self.seconds = before + time.perf_counter() - began
            reading_due = self.steps % self.recipe.log_steps == 0
            # Alone, a request to stop is met after every step. Several processes must agree, which costs a
            # message, so they do it when they read.
            if self.world.size == 1:
                stop = request.asked or self._fraction() >= 1
            if not (reading_due or stop):
                continue
            due = time.perf_counter() - saved_at >= self.recipe.snapshot_seconds
            stop, due = distributed.any_rank(
                [stop or request.asked or self._fraction() >= 1, due], self.world, self.machine.device
            )
            reading = self._read()
            if journal is not None:
                journal.add(reading)
            show.update(reading, self._fraction(), self._seconds_left())
            if due and not stop:
                self._snapshot(journal)
                saved_at, saved_step = time.perf_counter(), self.steps
        if self.steps > saved_step:
            self._snapshot(journal)
        distributed.wait(self.world)
        reason = "finished" if self._fraction() >= 1 else "interrupted"
        return FitResult(reason, self.steps, self.images, self.seconds, self.run.path)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint to the folder `path`, atomically. Under torchrun only the first process writes."""
        if not self.world.is_main:
            return
        tensors = {
            "generator": self.generator.state_dict(),
            "critic": self.critic.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizers": {
                f"{name}.{key}": value
                for name, optimizer in zip(("generator", "critic"), self.optimizers, strict=True)
                for key, value in checkpoint.optimizer_tensors(optimizer).items()
            },
            "random": {
                "latents": self.latents.stream.get_state(),
                **{name: stream.get_state() for name, stream in self.adversarial_step.streams.items()},
                **self.adversarial_step.state(),
            },
        }
        state = {
            "gan_fast": gan_fast.__version__,
            "torch": torch.__version__,
            "recipe": {"name": self.recipe.name, "settings": self.recipe.to_dict()},
            "model": {"name": self.model, "config": self.model_config},
            "latent_size": self.latents.size,
            "device": self.machine.device.type,
            "precision": self.machine.precision,
            "counters": {"steps": self.steps, "images": self.images, "seconds": round(self.seconds, 3)},
            "data": self.feed.state_dict(),
        }
        checkpoint.save(Path(path), tensors, state, {"format": "pt", "made_by": f"gan_fast {gan_fast.__version__}"})

    @classmethod
    def resume(cls, path: str | Path, data: Any = None, **settings: Any) -> Trainer:
        """The trainer that saved `path`, a run folder or a checkpoint, ready to go on.

        On the same device, thread count and torch it continues exactly, bit for bit on a CPU. `settings` replace the
        recipe's, to train longer for instance. Data given as an object must be given again.

        Raises `gan_fast.training.CheckpointError` naming the file that is missing, truncated, altered or foreign.
        """
        from gan_fast import recipes  # the layer above: a checkpoint names its recipe

        where = checkpoint.latest(Path(path))
        saved = checkpoint.load(where)
        recipe = recipes.get(saved.state["recipe"]["name"], **{**saved.state["recipe"]["settings"], **settings})
        recipe = recipe.for_resume()
        run = folder.run_of(where)
        trainer = cls(recipe, data=data, out=run)
        trainer.restore(saved)
        if run is not None:
            trainer.run = folder.RunFolder(run)
        return trainer

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Take over networks, average, optimisers, random state, data position and counters."""
        tensors, state = saved
        ours = {"name": self.model, "config": self.model_config}
        if state["model"] != ours:
            raise checkpoint.CheckpointError(
                f"the checkpoint's networks are {state['model']} and this trainer's {ours}"
            )
        self.generator.load_state_dict(tensors["generator"])
        self.critic.load_state_dict(tensors["critic"])
        self.ema.module.load_state_dict(tensors["ema"])
        for name, optimizer in zip(("generator", "critic"), self.optimizers, strict=True):
            own = {k.removeprefix(f"{name}."): v for k, v in tensors["optimizers"].items() if k.startswith(f"{name}.")}
            checkpoint.restore_optimizer(optimizer, own)
        counters = state["counters"]
        self.steps, self.images, self.seconds = counters["steps"], counters["images"], counters["seconds"]
        streams = {"latents": self.latents.stream, **self.adversarial_step.streams}
        for offset, (name, stream) in enumerate(streams.items()):
            if state["device"] == self.machine.device.type and name in tensors["random"]:
                stream.set_state(tensors["random"][name])
            else:
                # A stream of one kind of device cannot be continued on another, and one may be needed that the
                # run had no use for before: begin one that no step has used.
                stream.manual_seed(self.recipe.seed + self.steps + offset)
        for name, tensor in self.adversarial_step.state().items():
            tensor.copy_(tensors["random"].get(name, tensor))
        self.feed.load_state_dict(state["data"])

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """`[count, C, H, W]` in [-1, 1] or `[count, D]`, of the averaged generator, seeds `seed`, `seed + 1`, ..."""
        return sample(self.ema.module, range(seed, seed + count), self.latents.size)

    def _start_run(self) -> folder.RunFolder:
        run = folder.RunFolder(Path(self.out or folder.next_free(self.recipe.name, self.recipe.data)))
        if self.world.is_main:
            run.start()
        return run

    def _fraction(self) -> float:
        return self.recipe.budget.fraction(self.steps, self.images, self.seconds)

    def _seconds_left(self) -> float:
        fraction = self._fraction()
        return self.seconds * (1 - fraction) / fraction if fraction else math.inf

    def _read(self) -> Reading:
        """Wait for the device and average what happened since the last reading, over all ranks."""
        since_step, since_images, since_seconds = self._read_at
        means = distributed.mean(self._sums / (self.steps - since_step), self.world).tolist()
        self._sums.zero_()
        self._read_at = (self.steps, self.images, self.seconds)
        self._require_finite({"critic": means[0], "generator": means[5]})
        speed = (self.images - since_images) / max(self.seconds - since_seconds, 1e-9)
        critic_loss, real, fake, real_sign, fake_sign, generator_loss = means
        return Reading(
            self.steps,
            self.images,
            self.seconds,
            speed,
            critic_loss,
            generator_loss,
            real,
            fake,
            real_sign,
            fake_sign,
            {name: float(value) for name, value in self.adversarial_step.figures().items()},
        )

    def _require_finite(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"the {name}'s loss is {value} at step {self.steps}: {self._advice()}")

    def _advice(self) -> str:
        kept = (
            f"the last good checkpoint is kept, go on from it with `gan-fast resume {self.run.path}`"
            if self.run
            else ""
        )
        return f"{kept or 'nothing was saved'}; try lower learning rates or --precision fp32"

    def _snapshot(self, journal: Journal | None) -> None:
        """Checkpoint first, then pictures: a crash while drawing loses nothing."""
        assert self.run is not None
        networks = (self.generator, self.critic, self.ema.module)
        norms = torch._foreach_norm([p.detach() for network in networks for p in network.parameters()])
        if not bool(torch.stack(norms).isfinite().all()):
            raise NonFiniteError(f"weights are not finite at step {self.steps}: {self._advice()}")
        if journal is None:
            return
        self._keep()
        shown, real = self.recipe.preview(self.ema.module, self.data, self.feed.shape)
        journal.snapshot(self.steps, shown, real, rate=getattr(self.ema.module, "rate", 0))

    def _keep(self) -> None:
        """Save, then point `latest` at it, then remove what is too old: in this order it can die anywhere."""
        assert self.run is not None
        where = self.run.checkpoint(self.steps)
        self.save(where)
        checkpoint.point_latest(self.run.path, where)
        checkpoint.prune(self.run.checkpoints, self.recipe.keep)

    def _data_name(self) -> str:
        name = getattr(self.data, "name", type(self.data).__name__)
        kind = ("points", "sounds", "images")[len(self.feed.shape) - 1]
        count = f"{len(self.data):,} {kind}" if hasattr(self.data, "__len__") else f"a stream of {kind}"
        return f"{name} ({count} of {'x'.join(map(str, self.feed.shape))})"

    def _sizes(self) -> str:
        def count(network: torch.nn.Module) -> str:
            return f"{sum(p.numel() for p in network.parameters()) / 1000:,.0f}k"

        return f"{self.model} networks, generator {count(self.generator)}, critic {count(self.critic)} parameters"
