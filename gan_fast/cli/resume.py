"""gan-fast resume RUN [--kimg N] ..."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gan_fast.cli.parse import parse
from gan_fast.cli.train import run
from gan_fast.metrics.fidelity import Metric
from gan_fast.training import Trainer, folder


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run, exactly as if it had never stopped."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Run folder, one of its checkpoints, or RUN/best. Default: the newest run under runs/."""

    steps: int | None = None
    """New total of critic steps."""

    kimg: float | None = None
    """New total of thousand real images."""

    seconds: float | None = None
    """New total of training time. Any of these three replaces the run's own budget."""

    metrics: tuple[Metric, ...] | None = None
    """Judge samples by these from now on."""

    evaluate_kimg: float | None = None
    """Judge samples, and keep the best checkpoint, after every so many thousand images."""

    inception_weights: str | None = None
    """Weights file of the Inception of FID."""

    device: str | None = None
    """Go on on another device; no longer bit for bit."""

    threads: int | None = None
    """CPU threads; with another number than before, no longer bit for bit."""

    quiet: bool = False
    """Plain lines instead of a progress bar."""


def main(argv: Sequence[str]) -> int:
    options = parse(Resume, argv, "resume")
    settings = {k: v for k, v in dataclasses.asdict(options).items() if k != "run" and v is not None and v is not False}
    if not settings.keys().isdisjoint(("steps", "kimg", "seconds")):
        settings = {"steps": None, "kimg": None, "seconds": None, **settings}
    run(Trainer.resume(options.run or folder.newest(), **settings))
    return 0
