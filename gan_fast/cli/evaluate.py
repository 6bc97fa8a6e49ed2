"""gan-fast evaluate --run RUN"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gan_fast.cli.parse import parse
from gan_fast.training import evaluate_run, folder, machine


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Judge samples of a run offline, beside what the same figures are for real and for bad samples."""

    run: Path | None = None
    """Run folder or checkpoint. Default: the newest run under runs/."""

    count: int | None = None
    """Samples to judge, at least 2. Distances depend on it: compare only equal counts. Default: 2,000 images or 10,000
    points."""

    seed: int = 0
    """The first sample's seed."""

    device: str = "auto"
    """Where the generator runs."""

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
    )
    print("\n".join([*report.lines(), f"written to {where}"]))
    return 0
