"""What all recipes share. A recipe is a frozen dataclass: each field is a flag, its docstring the flag's help."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gan_fast import data as data_module
from gan_fast.losses import AdversarialLoss
from gan_fast.metrics.fidelity import Metric, check_metrics
from gan_fast.training.ema import EMA
from gan_fast.training.machine import Machine
from gan_fast.training.sampling import sample
from gan_fast.training.step import AdversarialStep, Penalties, Players, Step
from gan_fast.training.techniques import Techniques

__all__ = ["Budget", "Penalties", "Recipe"]

_GRID_IMAGES = 100
_PLOTTED_POINTS = 2500


class Budget(NamedTuple):
    """When a run ends: at whichever comes first. `seconds` counts training time over all sittings of the run."""

    steps: float = math.inf
    images: float = math.inf
    seconds: float = math.inf

    def fraction(self, steps: int, images: int, seconds: float) -> float:
        """How much of the budget is used; the run is over at 1."""
        return max(steps / self.steps, images / self.images, seconds / self.seconds)

    def __str__(self) -> str:
        parts = [f"{self.steps:,.0f} steps"] if self.steps < math.inf else []
        parts += [f"{self.images / 1000:,.0f} kimg"] if self.images < math.inf else []
        parts += [f"{self.seconds:,.0f} seconds"] if self.seconds < math.inf else []
        return " or ".join(parts)


def shown_count(shape: tuple[int, ...]) -> int:
    """How many samples of `shape` a snapshot shows."""
    return _PLOTTED_POINTS if len(shape) == 1 else _GRID_IMAGES


class Preview(NamedTuple):
    """What a snapshot shows: images `[N, C, H, W]`, `in_row` of them in each row, points `[N, D]` or sounds
    `[N, 1, T]`, and real ones to be shown with them."""

    samples: Tensor
    real: Tensor | None = None
    in_row: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the loop around a step."""

    name: ClassVar[str] = ""
    # Used where neither steps nor kimg nor seconds is given.
    default_budget: ClassVar[Budget] = Budget(images=1_000_000)
    # The command that makes more pictures with a run.
    made_with: ClassVar[str] = "generate"

    data: str = "digits"
    """Training images: digits, stacked-digits, fashion-mnist, a folder or zip of images, or a file packed by `gan-fast
    data`; or points in the plane: ring8, grid25, swissroll."""

    out: str | None = None
    """Folder of the run. Default: the next free runs/NNNN-recipe-data."""

    resolution: int | None = None
    """Side of the images, a power of two from 8. Default: chosen from the data."""

    channels: int | None = None
    """1 for grey, 3 for colour. Default: the data's own."""

    steps: int | None = None
    """Stop after this many critic steps."""

    kimg: float | None = None
    """Stop after this many thousand real images shown to the critic."""

    seconds: float | None = None
    """Stop after this much training time. Of steps, kimg and seconds the first to be reached ends the run."""

    batch: int = 64
    """Samples per step, over all processes."""

    updates: Literal["alternating", "simultaneous"] = "alternating"
    """Simultaneous: the generator learns from the critic step's own backward, at the weights before it, and the critic
    scores no image twice. Alternating: from a pass of its own through the updated critic."""

    flip: bool = False
    """Mirror half of the images, where left and right mean nothing."""

    ema_kimg: float = 10.0
    """Half-life of the averaged generator, in thousand images."""

    ema_ramp: float = 0.05
    """The half-life is at most this share of the images seen so far, so that the average does not start stale; 0 for
    no such limit."""

    seed: int = 0
    """Of initial weights, data order and latents."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 runs the networks under autocast; auto does for images where the machine multiplies bf16 in hardware."""

    channels_last: bool | None = None
    """Keep images and filters in channels-last order. Default: where it is faster."""

    threads: int | None = None
    """CPU threads. Default: one for points and images up to 16 pixels, otherwise torch's choice, one per core."""

    snapshot_seconds: float = 20.0
    """Time between checkpoints, sample grids and loss curves: the most that a crash can lose."""

    keep: int = 2
    """Checkpoints to keep, newest first."""

    log_steps: int = 20
    """Steps between two readings of the losses; between them nothing waits for the device."""

    evaluation_samples: int | None = None
    """Samples that `gan-fast train` judges when it is done; 0 for no evaluation. Default: 2,000 images or 10,000
    points."""

    metrics: tuple[Metric, ...] = ("proxy",)
    """What samples are judged by, the one that decides which checkpoint is best first. Names that begin with proxy need
    nothing; the others need torch-fidelity and the weights of Inception."""

    evaluate_kimg: float | None = None
    """Judge samples after every so many thousand images too, and keep the best checkpoint. Default: only `gan-fast
    train` does, when it is done."""

    inception_weights: str | None = None
    """Weights file of the Inception of FID. Default: $GAN_FAST_INCEPTION, or where torch-fidelity would have put it."""

    quiet: bool = False
    """Plain lines instead of a progress bar, as when the output is not a terminal."""

    def __post_init__(self) -> None:
        # Annotations are strings here; every positive number is listed by name.
        for field in self.positive_fields():
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise ValueError(f"{field} must be greater than 0, got {value!r}")
        for field in self.non_negative_fields():
            value = getattr(self, field)
            if value is not None and not value >= 0:
                raise ValueError(f"{field} must be 0 or greater, got {value!r}")
        for field in self.decay_fields():
            value = getattr(self, field)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{field} must be in [0, 1), got {value!r}")
        # From a checkpoint's JSON it comes as a list.
        object.__setattr__(self, "metrics", tuple(self.metrics))
        check_metrics(self.metrics)
        if self.evaluate_kimg is not None and self.evaluation_samples == 0:
            raise ValueError("evaluate_kimg judges samples while it trains: evaluation_samples must not be 0 then")
        if self.updates == "simultaneous" and self.generator_period() != 1:
            raise ValueError(
                "simultaneous updates train both networks at every step, got "
                f"{self.generator_period()} critic steps for each of the generator: use --critic-steps 1"
            )

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (
            "steps",
            "kimg",
            "seconds",
            "batch",
            "ema_kimg",
            "threads",
            "snapshot_seconds",
            "keep",
            "log_steps",
            "evaluate_kimg",
        )

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return ("seed", "evaluation_samples", "ema_ramp")

    @classmethod
    def decay_fields(cls) -> tuple[str, ...]:
        """Decays of moving averages, from 0 to below 1."""
        return ()

    @property
    def budget(self) -> Budget:
        """What was asked for, or the recipe's default."""
        if self.steps is None and self.kimg is None and self.seconds is None:
            return self.default_budget
        return Budget(
            self.steps or math.inf,
            self.kimg * 1000 if self.kimg is not None else math.inf,
            self.seconds or math.inf,
        )

    def load_data(self) -> Any:
        """What `data` names, as `Trainer(data=...)` takes it."""
        return data_module.load(self.data, resolution=self.resolution, channels=self.channels)

    def wants_labels(self) -> bool:
        """Whether the networks are given the class of each sample."""
        return False

    def for_data(self, shape: tuple[int, ...], processes: int = 1) -> Recipe:
        """The recipe with all that depends on the samples `[C, H, H]` or `[D]` filled in.

        ValueError where it asks for other samples.
        """
        if len(shape) == 1:
            has: dict[str, Any] = {"resolution": None, "channels": None}
        elif shape[1] != shape[2]:
            raise ValueError(f"recipe {self.name} is for square images and the data given has {list(shape)}")
        else:
            has = {"resolution": shape[1], "channels": shape[0]}
        for name, value in has.items():
            asked = getattr(self, name)
            if asked is not None and asked != value:
                raise ValueError(f"recipe asks for {name} {asked} but the data given has {value or 'points'}")
        return dataclasses.replace(self, **has)

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        """Name and settings for `models.build`, of networks for samples `[C, H, H]` (images) or `[D]` (points).

        ValueError where the recipe has none for such samples.
        """
        raise NotImplementedError

    def for_resume(self) -> Recipe:
        """The recipe for a run that goes on from a checkpoint."""
        return self

    def prepare(self, generator: nn.Module, critic: nn.Module, average: nn.Module, machine: Machine) -> None:
        """What is to be done with new networks, `average` the generator's, before they are trained: nothing here."""

    def step(self, players: Players) -> Step:
        """One training step of both networks."""
        return AdversarialStep(
            players.generator,
            players.critic,
            self.loss_function(),
            players.optimizers,
            players.latents,
            generator_period=self.generator_period(),
            updates=self.updates,
            penalties=self.penalties(),
            techniques=self.techniques(),
            seed=self.seed,
            machine=players.machine,
            world=players.world,
        )

    def latent_size(self, shape: tuple[int, ...]) -> int:
        """Length of one latent vector, for samples of `shape`; 0 where the generator takes images."""
        raise NotImplementedError

    def loss_function(self) -> AdversarialLoss:
        raise NotImplementedError

    def generator_period(self) -> int:
        """Critic steps for each generator step."""
        raise NotImplementedError

    def penalties(self) -> Penalties:
        """None of them unless a recipe says so."""
        return Penalties()

    def techniques(self) -> Techniques:
        """None of them unless a recipe says so."""
        return Techniques()

    def preview(self, average: nn.Module, data: Any, shape: tuple[int, ...]) -> Preview:
        """What a snapshot shows of the averaged generator."""
        count = shown_count(shape)
        real = data.points[:count] if isinstance(data, data_module.PointDataset) else None
        return Preview(sample(average, range(count), self.latent_size(shape)), real)

    def follow(
        self,
        images: int,
        step: Step,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        average: EMA,
    ) -> None:
        """Move what the recipe's schedules move, for the step that begins after `images` images: nothing here.

        They depend on that number alone, so nothing of them is saved with a run.
        """

    def optimizers(
        self, generator: nn.Module, critic: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Of the generator and of the critic."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
