"""gan-fast evaluate --run RUN"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gan_fast.cli.parse import parse
from gan_fast.metrics.fidelity import Metric
from gan_fast.training import evaluate_run, folder, machine


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Judge samples of a run, beside what the same figures are for real and for bad samples."""

    run: Path | None = None
    """Run folder, checkpoint, or RUN/best. Default: the newest run under runs/."""

    count: int | None = None
    """Samples to judge, at least 2. Distances depend on it: compare only equal counts. Default: 2,000 images or 10,000
    points."""

    seed: int = 0
    """The first sample's seed."""

    metrics: tuple[Metric, ...] | None = None
    """proxy is the offline report of the data at hand; fid, kid, is, precision_recall and density_coverage need
    torch-fidelity and the weights of Inception; the last two are there by the proxy's features too. Default: those that
    the run was trained with, usually proxy."""

    inception_weights: Path | None = None
    """Weights file of the Inception of FID. Default: $GAN_FAST_INCEPTION, or where torch-fidelity would have put it."""

    device: str = "auto"
    """Where the generator and Inception run."""

    def __post_init__(self) -> None:
        if (self.count is not None and self.count < 2) or self.seed < 0:
            raise ValueError(f"count must be at least 2 and seed 0 or greater, got {self.count} and {self.seed}")


def main(argv: Sequence[str]) -> int:
    options = parse(Evaluate, argv, "evaluate")
    report, where = evaluate_run(
        options.run or folder.newest(),
        count=options.count,
        seed=options.seed,
        device=str(machine.choose_device(options.device)),
        progress=print,
        metrics=options.metrics,
        inception_weights=options.inception_weights,
    )
    print("\n".join([*report.lines(), f"written to {where}"]))
    return 0
