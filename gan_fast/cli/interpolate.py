"""gan-fast interpolate --run RUN --seeds 1 2 3 --out walk.gif"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from gan_fast import editing
from gan_fast.cli import UsageError
from gan_fast.cli.generator import StyleOptions, check_seeds
from gan_fast.cli.parse import parse
from gan_fast.models import stylegan2
from gan_fast.training import animation, pictures
from gan_fast.training.control import Control

_GRID_STEPS = 8
_FILM_STEPS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolate(StyleOptions):
    """Walk from seed to seed and write the way as a grid (.png), an animation (.gif) or a film (.mp4)."""

    seeds: tuple[int, ...] = (0, 1)
    """Where to go, two or more; each is met exactly."""

    frames: int | None = None
    """Steps from one seed to the next. Default: 8 for a grid, 60 for an animation."""

    kind: Literal["auto", "linear", "spherical"] = "auto"
    """Along the straight line or the arc. Default: spherical between latents, linear between styles."""

    space: Literal["auto", "z", "w"] = "auto"
    """Walk among latents z or styles w. Default: w where there are styles (stylegan2), else z."""

    loop: bool = False
    """Go on from the last seed to the first."""

    fps: float = 25.0
    """Frames per second of an animation."""

    out: Path = Path("interpolation.gif")
    """File to write: .png, .gif or .mp4."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seeds(self.seeds, at_least=2)
        if (self.frames is not None and self.frames < 1) or not 1 <= self.fps <= 240:
            raise UsageError(f"frames must be 1 or more and fps from 1 to 240, got {self.frames} and {self.fps}")
        if self.out.suffix.lower() not in (".png", ".gif", ".mp4"):
            raise UsageError(f"out must end in .png, .gif or .mp4, got {self.out}")
        if self.noise == "random":
            raise UsageError("noise must be const or none here: random noise would flicker")


def main(argv: Sequence[str]) -> int:
    options = parse(Interpolate, argv, "interpolate")
    control = options.open()
    points = way(options, control)
    suffix = options.out.suffix.lower()
    if suffix == ".png":
        pictures.save_grid(options.out, control.pictures(points, options.noise))
    else:
        save = animation.save_gif if suffix == ".gif" else animation.save_mp4
        save(options.out, _frames(control, points, options), options.fps)
    print(f"{len(points)} frames between seeds {', '.join(map(str, options.seeds))} of {control.source}: {options.out}")
    return 0


def way(options: Interpolate, control: Control) -> Tensor:
    """Every frame's styles, or latents and classes of a generator without styles."""
    steps = options.frames or (_GRID_STEPS if options.out.suffix.lower() == ".png" else _FILM_STEPS)
    styled = isinstance(control.generator, stylegan2.Generator)
    space = ("w" if styled else "z") if options.space == "auto" else options.space
    kind = ("linear" if space == "w" else "spherical") if options.kind == "auto" else options.kind
    if space == "w":
        control.style_generator("--space w")
    if space == "w":
        keys = control.points(options.seeds, options.classes, options.truncation, options.truncation_cutoff)
        return editing.walk(keys, steps, kind, options.loop)
    latents = editing.walk(control.latents(options.seeds), steps, kind, options.loop)
    labels = editing.walk(control.labels(options.seeds, options.classes), steps, "linear", options.loop)
    return control.points_of(latents, labels, options.truncation, options.truncation_cutoff)


def _frames(control: Control, points: Tensor, options: Interpolate) -> Iterator[Tensor]:
    for images in control.batches(points, options.noise):
        if images.ndim == 2:
            raise ValueError(f"interpolate makes pictures, and {control.source} makes points: use `gan-fast generate`")
        yield from pictures.to_bytes(images)
