"""Options that every command on a trained generator has."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal

from gan_fast.cli import UsageError
from gan_fast.training import folder, machine
from gan_fast.training.control import Control


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorOptions:
    """Which generator, and where it runs."""

    run: Path | None = None
    """Run folder, checkpoint, or RUN/best. Default: the newest run under runs/."""

    weights: Path | None = None
    """Instead of a run: a file or folder that `gan-fast convert` wrote."""

    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if self.run is not None and self.weights is not None:
            raise UsageError("give --run or --weights, not both")

    def open(self) -> Control:
        run = None if self.weights is not None else self.run or folder.newest()
        return Control(run, self.weights, machine.choose_device(self.device))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleOptions(GeneratorOptions):
    """What a picture of a seed depends on besides it."""

    truncation: float = 1.0
    """Styles at this share of their distance from the mean style: below 1 more typical, 0 the mean. StyleGAN2 only."""

    truncation_cutoff: int | None = None
    """Truncate only this many layers, from the coarsest. Default: all."""

    classes: tuple[int, ...] = ()
    """One class for all seeds, or one for each. Default: seed s gets class s mod their number. Class-conditional
    generators only."""

    noise: Literal["const", "random", "none"] = "const"
    """Detail noise of StyleGAN2: the generator's own maps, maps of the seed, or none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.truncation):
            raise UsageError(f"truncation must be a number, usually 0 to 1, got {self.truncation}")
        if self.truncation_cutoff is not None and self.truncation_cutoff < 0:
            raise UsageError(f"truncation_cutoff must be 0 or more layers, got {self.truncation_cutoff}")


def check_seeds(seeds: tuple[int, ...], at_least: int = 1) -> None:
    if len(seeds) < at_least or min(seeds, default=0) < 0:
        raise UsageError(f"seeds must be {at_least} or more whole numbers from 0, got {list(seeds)}")
