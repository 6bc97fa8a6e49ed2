"""The loop around a step: data in, two networks trained, an average kept, everything saved.

for each batch x:   step(x);  ema.update();     now and then: read losses, draw pictures, save, judge samples
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import gan_fast
from gan_fast import data as data_module
from gan_fast import models
from gan_fast.metrics.fidelity import PROXY
from gan_fast.training import checkpoint, distributed, feed, folder, machine, progress
from gan_fast.training.ema import EMA
from gan_fast.training.evaluation import Judge, Judgement, keep_if_best, write_judgement
from gan_fast.training.interrupt import interrupts
from gan_fast.training.journal import Journal, Reading, read_warnings
from gan_fast.training.recipe import Preview, Recipe, shown_count
from gan_fast.training.sampling import requested_classes, sample
from gan_fast.training.step import Latents, Players, StepStats
from gan_fast.training.watch import Alarm, Watch, chance_loss, network_norm, norm_of


class NonFiniteError(RuntimeError):
    """Losses or weights became infinite or NaN: nothing of that was saved."""


class FitResult(NamedTuple):
    """How `fit` ended. reason: "finished" (the budget is used) or "interrupted" (Ctrl-C or SIGTERM).

    best: the checkpoint that was judged best, where samples were judged while it trained.
    """

    reason: str
    step: int
    images: int
    seconds: float
    run: Path
    best: Path | None = None
    made_with: str = "generate"

    def lines(self) -> list[str]:
        """Where everything is and how to go on."""
        run = self.run
        more = "" if self.reason == "interrupted" else f" --kimg {math.ceil(self.images / 500)}"
        warnings = len(read_warnings(folder.RunFolder(run)))
        return [
            f"{self.reason} after {self.step:,} steps, {self.images / 1000:,.0f} kimg, {progress.clock(self.seconds)}",
            f"  samples      {run / 'samples.png'}",
            f"  losses       {run / 'losses.png'}",
            f"  checkpoint   {run / 'checkpoints' / f'{self.step:09d}'}",
            *([f"  best         {self.best}, also as {run / checkpoint.BEST_FILE}"] if self.best else []),
            f"  tensorboard  tensorboard --logdir {run / 'tensorboard'}",
            *([f"  warnings     {warnings}, with figures and samples: {run / 'warnings.jsonl'}"] if warnings else []),
            f"  more images  gan-fast {self.made_with} --run {run}",
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
            `[N, 1, T]`. A `PairDataset`, or batches of two pictures `[N, 2 C, H, W]`, for recipes that translate.
            Default: what `recipe.data` names.
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
        # Before any network is made: what cannot be judged is said now, not after hours.
        self.judge: Judge | None = None
        self.judgement: Judgement | None = None
        if self.world.is_main and (recipe.evaluate_kimg is not None or recipe.metrics != (PROXY,)):
            self.judge = Judge(
                data,
                recipe.metrics,
                recipe.evaluation_samples,
                inception_weights=recipe.inception_weights,
                device=device,
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
        self.watch = Watch(chance_loss(self.adversarial_step))
        self._real: Tensor | None = None
        self._journal: Journal | None = None
        self._show: progress.Progress = progress.Silent()
        self._sums = torch.zeros(6, device=device)
        self._read_at = (0, 0, 0.0)

    def step(self, batch: Any) -> StepStats:
        """Train on a batch of real samples, `[N, C, H, W]`, `[N, D]` or `[N, 1, T]`: the critic, the generator, the
        average.

        Where the recipe wants labels the batch is (samples, labels), labels `[N]` whole numbers or `[N, classes]`.
        """
        real = feed.to_samples(batch, self.machine.device).to(memory_format=self.machine.memory_format)
        if real.shape[1:] != self.feed.shape:
            raise ValueError(f"samples must be {list(self.feed.shape)} as those at first, got {list(real.shape[1:])}")
        self._real = real
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
        saved_at, saved_step, judged = began, self.steps, self.steps
        show.say(f"{self.recipe.name} on {self._data_name()}, {self._sizes()}; {self.machine}")
        show.say(f"until {self.recipe.budget}; run folder {self.run.path}")
        journal = self._journal = Journal(self.run, self.steps) if main else None
        self._show = show
        request = stack.enter_context(interrupts())
        if journal is not None:
            stack.callback(journal.close)
        stack.callback(show.stop)
        show.start()
        if self.steps == 0:
            self._snapshot(journal)
        elif journal is not None and self._judging_owed(journal):
            self._judge(journal, show)
            began = time.perf_counter()
        self._read_at = (self.steps, self.images, self.seconds)
        stop = self._fraction() >= 1
        while not stop:
            images = self.images
            self.step(self.feed.next())
            self.seconds = before + time.perf_counter() - began
            if self._judging_due(images):
                paused = time.perf_counter()
                self._snapshot(journal)
                saved_step = judged = self.steps
                self._judge(journal, show)
                # Time spent judging is not training time.
                began += time.perf_counter() - paused
                saved_at = time.perf_counter()
            # Steps and images are the same for every process: so is the end where they are what is counted.
            counted = self.recipe.budget.fraction(self.steps, self.images, 0.0) >= 1
            reading_due = counted or self.steps % self.recipe.log_steps == 0
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
                self._warn(self.watch.reading(reading, *self._generator_norms()))
            show.update(reading, self._fraction(), self._seconds_left())
            if due and not stop:
                self._snapshot(journal)
                saved_at, saved_step = time.perf_counter(), self.steps
        if self.steps > saved_step:
            self._snapshot(journal)
        reason = "finished" if self._fraction() >= 1 else "interrupted"
        if reason == "finished" and self.recipe.evaluate_kimg is not None and self.steps > judged:
            self._judge(journal, show)
        distributed.wait(self.world)
        best = checkpoint.read_best(self.run.path)
        return FitResult(
            reason, self.steps, self.images, self.seconds, self.run.path, best and best[0], self.recipe.made_with
        )

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

    def sample(self, count: int, seed: int = 0, classes: Sequence[int] | None = None) -> Tensor:
        """`[count, C, H, W]` in [-1, 1] or `[count, D]`, of the averaged generator, seeds `seed`, `seed + 1`, ...

        Of a conditional one the class of each, by default s mod their number for seed s. ValueError where the generator
        takes images.
        """
        return sample(self.ema.module, range(seed, seed + count), self.latents.size, classes)

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
                message = f"the {name}'s loss is {value} at step {self.steps}: {self._advice()}"
                self._warn([Alarm("non-finite", message, losses)], pictures=False)
                raise NonFiniteError(message)

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
            message = f"weights are not finite at step {self.steps}: {self._advice()}"
            self._warn([Alarm("non-finite", message, {})], pictures=False)
            raise NonFiniteError(message)
        if journal is None:
            return
        self._keep()
        shown = self._preview()
        # Rows of inputs and outputs, and sounds, are not compared with one another.
        samples_alone = shown.in_row is None and shown.samples.ndim != 3
        alarms: list[Alarm] = []
        figures: dict[str, float] = {}
        if samples_alone:
            sizes = {"generator": network_norm(self.generator), "critic": network_norm(self.critic)}
            real = self._real_samples()
            alarms, figures = self.watch.snapshot(self.images, self._fraction(), shown.samples, real, sizes)
        rate = getattr(self.ema.module, "rate", 0)
        journal.snapshot(self.steps, shown.samples, shown.real, figures, shown.in_row, rate)
        self._warn(alarms)

    def _preview(self) -> Preview:
        return self.recipe.preview(self.ema.module, self.data, self.feed.shape)

    def _real_samples(self) -> Tensor | None:
        """Real samples that a grid's are compared with: from all over the data, or of the last batch of a loader."""
        if isinstance(self.data, (data_module.PointDataset, data_module.ImageDataset)):
            count = min(shown_count(self.feed.shape), len(self.data))
            return self.data.float_batch(torch.linspace(0, len(self.data) - 1, count).long())
        return None if self._real is None else self._real.cpu()

    def _generator_norms(self) -> tuple[float | None, float]:
        """Of the gradient that the generator's last step left, None before the first, and of its weights."""
        gradients = [p.grad for p in self.generator.parameters() if p.grad is not None]
        return (norm_of(gradients) if gradients else None), network_norm(self.generator)

    def _warn(self, alarms: list[Alarm], pictures: bool = True) -> None:
        """Say each, and write it with its evidence into the run's folder."""
        if self._journal is None:
            return
        for kind, message, figures in alarms:
            shown = self._preview() if pictures and len(self.feed.shape) != 2 else None
            samples, real = (None, None) if shown is None else (shown.samples, shown.real)
            where = self._journal.warn(
                kind, message, figures, step=self.steps, images=self.images, samples=samples, real=real
            )
            self._show.say(f"warning at step {self.steps:,}: {message}. Evidence: {where}")

    def _keep(self) -> None:
        """Save, then point `latest` at it, then remove what is too old: in this order it can die anywhere."""
        assert self.run is not None
        where = self.run.checkpoint(self.steps)
        self.save(where)
        checkpoint.point_latest(self.run.path, where)
        best = checkpoint.read_best(self.run.path)
        # A run that goes on from an earlier checkpoint saves beside later ones: the new one stays.
        checkpoint.prune(self.run.checkpoints, self.recipe.keep, {where, best[0]} if best else {where})

    def _judging_due(self, before: int) -> bool:
        """Whether the step from `before` images went to a multiple of `evaluate_kimg`, the same on every rank."""
        if self.recipe.evaluate_kimg is None:
            return False
        every = self.recipe.evaluate_kimg * 1000
        return self.images // every > before // every

    def _judging_owed(self, journal: Journal) -> bool:
        """Whether the run was ended while it judged this step, whose checkpoint is there first."""
        due = self._judging_due(self.images - self.recipe.batch) and self.steps not in journal.judged_steps
        return due and self.run is not None and self.run.checkpoint(self.steps).is_dir()

    def _judge(self, journal: Journal | None, show: progress.Progress) -> None:
        """Judge samples of the checkpoint just saved, and keep it if it is the best; the first process, for all."""
        if journal is None:
            return
        assert self.run is not None and self.judge is not None
        requested = requested_classes(self.ema.module, range(self.judge.count))
        self.judgement = self.judge(self.sample(self.judge.count), show.say, requested)
        where = self.run.checkpoint(self.steps)
        journal.judged(self.steps, self.images, self.judgement.figures)
        write_judgement(self.judgement, where, 0)
        best = keep_if_best(self.run.path, where, self.judgement, self.recipe.metrics[0])
        said = "  ".join(f"{name} {value:.4g}" for name, value in self.judgement.figures.items())
        show.say(f"step {self.steps}  kimg {self.images / 1000:.1f}  {said}{'  the best so far' if best else ''}")

    def _data_name(self) -> str:
        name = getattr(self.data, "name", type(self.data).__name__)
        if isinstance(self.data, data_module.PairDataset):
            return f"{name} ({self.data})"
        kind = ("points", "sounds", "images")[len(self.feed.shape) - 1]
        count = f"{len(self.data):,} {kind}" if hasattr(self.data, "__len__") else f"a stream of {kind}"
        return f"{name} ({count} of {'x'.join(map(str, self.feed.shape))})"

    def _sizes(self) -> str:
        def count(network: torch.nn.Module) -> str:
            return f"{sum(p.numel() for p in network.parameters()) / 1000:,.0f}k"

        return f"{self.model} networks, generator {count(self.generator)}, critic {count(self.critic)} parameters"
