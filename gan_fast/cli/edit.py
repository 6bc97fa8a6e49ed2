"""gan-fast edit --run RUN --seeds 1 2 --directions 0 1 --strength 5"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from gan_fast import editing
from gan_fast.cli import UsageError
from gan_fast.cli.generator import StyleOptions, check_seeds
from gan_fast.cli.numbers import parse_numbers
from gan_fast.cli.parse import parse
from gan_fast.training import pictures
from gan_fast.training.control import load_styles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit(StyleOptions):
    """Move pictures along directions found in the generator's weights: a row for each picture and direction, the
    strength from left to right, the original in the middle. What a direction means is for the eye to find out."""

    seeds: tuple[int, ...] = (0,)
    """Pictures to edit."""

    styles: Path | None = None
    """Edit this picture instead: a file that `gan-fast project` wrote."""

    directions: tuple[int, ...] = (0,)
    """Numbers of directions, the strongest is 0."""

    strength: float = 5.0
    """How far to go to either side, in the units of w; 1 to 10 is usual."""

    steps: int = 7
    """Pictures in a row, an odd number."""

    layers: str | None = None
    """Layers to find the directions in and to move, such as 0-3: the lowest hold shape and pose, the highest colour and
    texture. Default: all."""

    out: Path = Path("edited")
    """Folder to write to: edit.png and every picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seeds(self.seeds)
        if not self.directions or min(self.directions) < 0:
            raise UsageError(f"directions must be whole numbers from 0, got {list(self.directions)}")
        if self.steps < 3 or self.steps % 2 == 0:
            raise UsageError(
                f"steps must be an odd number from 3, so that the original is in the middle, got {self.steps}"
            )
        if not (math.isfinite(self.strength) and self.strength > 0):
            raise UsageError(f"strength must be greater than 0, got {self.strength}")
        if self.layers is not None:
            parse_numbers(self.layers)


def main(argv: Sequence[str]) -> int:
    options = parse(Edit, argv, "edit")
    control = options.open()
    generator = control.style_generator("edit")
    layers = None if options.layers is None else parse_numbers(options.layers)
    found = editing.edit_directions(generator, layers)
    if max(options.directions) >= len(found.vectors):
        raise ValueError(f"this generator has directions 0 to {len(found.vectors) - 1}, got {max(options.directions)}")
    if options.styles is not None:
        points, maps = load_styles(options.styles, generator)
        points, names, seeds = points.to(control.device), [options.styles.stem], [0]
        control.use(maps)
    else:
        seeds = list(options.seeds)
        points = control.points(seeds, options.classes, options.truncation, options.truncation_cutoff)
        names = [f"seed{seed:06d}" for seed in seeds]

    amounts = torch.linspace(-1, 1, options.steps) * options.strength
    amounts[options.steps // 2] = 0
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, ws, seed in zip(names, points, seeds, strict=True):
        for number in options.directions:
            swept = ws.expand(options.steps, -1, -1)
            moved = editing.move(swept, found.vectors[number], amounts.to(ws), found.layers)
            images = control.pictures(moved, options.noise, [seed] * options.steps)
            for amount, image in zip(amounts.tolist(), pictures.to_bytes(images), strict=True):
                pictures.save_png(options.out / f"{name}_direction{number:03d}_{amount:+07.2f}.png", image)
            rows.append(images)
    path = options.out / "edit.png"
    pictures.save_grid(path, torch.cat(rows), columns=options.steps)
    shown = f"strength {-options.strength:g} to {options.strength:g}, layers {', '.join(map(str, found.layers))}"
    print(f"{len(rows)} rows of {control.source}, {shown}: {path}")
    return 0
