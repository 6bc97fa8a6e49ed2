"""gan-fast generate --run RUN --count N --seed S --out FOLDER"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gan_fast.cli.parse import parse
from gan_fast.training import Sampler, folder, machine, pictures


@dataclasses.dataclass(frozen=True)
class Generate:
    """Write samples of a trained generator: one PNG for each seed and a grid of all; points as a table and a plot."""

    run: Path | None = None
    """Run folder or checkpoint. Default: the newest run under runs/."""

    count: int = 64
    """How many samples: seeds seed, seed + 1, ..."""

    seed: int = 0
    """The first seed. A sample belongs to its seed alone."""

    seeds: tuple[int, ...] = ()
    """These seeds and no others."""

    out: Path = Path("generated")
    """Folder to write to."""

    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.seed, *self.seeds, 0) < 0:
            raise ValueError("count must be at least 1 and seeds 0 or greater")


def main(argv: Sequence[str]) -> int:
    options = parse(Generate, argv, "generate")
    seeds = options.seeds or range(options.seed, options.seed + options.count)
    sampler = Sampler(options.run or folder.newest(), machine.choose_device(options.device))
    samples = sampler.samples(seeds)
    if samples.ndim == 2:
        table, plot = pictures.save_points(options.out, samples, seeds)
        print(f"{len(seeds)} points of {sampler.folder}: {table}, plotted in {plot}")
        return 0
    paths = pictures.save_each(options.out, samples, seeds)
    print(f"{len(seeds)} images of {sampler.folder}: {paths[0]} to {paths[-1].name}, all in {options.out / 'grid.png'}")
    return 0
