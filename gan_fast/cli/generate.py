"""gan-fast generate --run RUN --count N --seed S --out FOLDER"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gan_fast import editing
from gan_fast.cli import UsageError
from gan_fast.cli.generator import StyleOptions
from gan_fast.cli.numbers import parse_numbers
from gan_fast.cli.parse import parse
from gan_fast.training import pictures, sounds
from gan_fast.training.control import Control


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(StyleOptions):
    """Write samples of a trained generator: one PNG for each seed and a grid of all; points as a table and a plot;
    sounds as wav files and a picture of their spectrograms."""

    count: int = 64
    """How many samples: seeds seed, seed + 1, ..."""

    seed: int = 0
    """The first seed. A sample belongs to its seed alone."""

    seeds: tuple[int, ...] = ()
    """These seeds and no others."""

    style_mix: tuple[str, str, str] | None = None
    """Instead: a table of mixed styles. Seeds of the rows, seeds of the columns, and the layers whose styles come from
    the columns, as in `--style-mix 0-3 7,9 4-9`; the lowest layers are the coarsest. StyleGAN2 only."""

    out: Path = Path("generated")
    """Folder to write to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1 or min(self.seed, *self.seeds, 0) < 0:
            raise UsageError("count must be at least 1 and seeds 0 or greater")
        if self.style_mix is not None:
            if self.noise == "random":
                raise UsageError("a style-mix table has --noise const or none: its pictures have two seeds each")
            self.table()

    def table(self) -> tuple[list[int], list[int], list[int]]:
        """Rows, columns and layers of the style mix."""
        rows, columns, layers = map(parse_numbers, self.style_mix or ())
        return rows, columns, layers


def main(argv: Sequence[str]) -> int:
    options = parse(Generate, argv, "generate")
    control = options.open()
    if options.style_mix is not None:
        return _mix(options, control)
    seeds = options.seeds or range(options.seed, options.seed + options.count)
    points = control.points(seeds, options.classes, options.truncation, options.truncation_cutoff)
    samples = control.pictures(points, options.noise, seeds)
    if samples.ndim == 2:
        table, plot = pictures.save_points(options.out, samples, seeds)
        print(f"{len(seeds)} points of {control.source}: {table}, plotted in {plot}")
        return 0
    if samples.ndim == 3:
        paths = sounds.save_each(options.out, samples, control.rate, seeds)
        seen = options.out / "spectrograms.png"
        print(f"{len(seeds)} sounds of {control.source}: {paths[0]} to {paths[-1].name}, all seen in {seen}")
        return 0
    paths = pictures.save_each(options.out, samples, seeds)
    print(f"{len(seeds)} images of {control.source}: {paths[0]} to {paths[-1].name}, all in {options.out / 'grid.png'}")
    return 0


def _mix(options: Generate, control: Control) -> int:
    rows, columns, layers = options.table()
    generator = control.style_generator("--style-mix")
    points = control.points([*rows, *columns], options.classes, options.truncation, options.truncation_cutoff)
    of_rows, of_columns = points[: len(rows)], points[len(rows) :]
    mixed = editing.style_mix(generator, of_rows, of_columns, layers, noise_mode=options.noise).float().cpu()
    own = control.pictures(points, options.noise)
    path = options.out / "style_mix.png"
    pictures.save_table(path, mixed.clamp(-1, 1), own[: len(rows)], own[len(rows) :])
    shown = ",".join(map(str, layers))
    print(f"{len(rows)} x {len(columns)} pictures of {control.source}, layers {shown} from the columns: {path}")
    return 0
