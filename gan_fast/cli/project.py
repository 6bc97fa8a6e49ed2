"""gan-fast project PICTURE --run RUN"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import tyro

from gan_fast import editing
from gan_fast.cli import UsageError
from gan_fast.cli.generator import GeneratorOptions
from gan_fast.cli.parse import parse
from gan_fast.data import decode
from gan_fast.training import pictures
from gan_fast.training.control import save_styles

_LINES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Project(GeneratorOptions):
    """Find the styles of a picture: w and the noise maps whose image is nearest to it. `gan-fast edit --styles` and
    gan_fast.editing take them from there."""

    picture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PICTURE")]
    """Image file; cropped to a square and resized to the generator's side."""

    steps: int = 500
    """Steps of the search; the paper's are 1000."""

    seed: int = 0
    """Of the search's random numbers; the result depends on it alone."""

    label: int | None = None
    """Class of the picture, for a class-conditional generator."""

    noise_maps: bool = True
    """Fit the noise maps too. Without, the generator's own stay."""

    out: Path = Path("projected")
    """Folder to write to: w.safetensors, and projection.png with the picture beside its projection."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.seed < 0:
            raise UsageError(f"steps must be 1 or more and seed 0 or greater, got {self.steps} and {self.seed}")


def main(argv: Sequence[str]) -> int:
    options = parse(Project, argv, "project")
    control = options.open()
    generator = control.style_generator("project")
    target = _read(options.picture, generator.img_resolution, generator.img_channels)
    labels = None
    if generator.c_dim:
        if options.label is None:
            raise ValueError(f"{control.source} is class-conditional: say with --label which of its {generator.c_dim}")
        labels = control.labels([0], [options.label])
    elif options.label is not None:
        control.labels([0], [options.label])

    def tell(step: int, distance: float) -> None:
        if (step + 1) % max(1, options.steps // _LINES) == 0 or step == 0:
            print(f"step {step + 1}/{options.steps}: distance {distance:.4g}", flush=True)

    found = editing.project(
        generator, target.to(control.device), steps=options.steps, c=labels, with_noise=options.noise_maps,
        seed=options.seed, progress=tell,
    )  # fmt: skip
    styles, beside = options.out / "w.safetensors", options.out / "projection.png"
    save_styles(styles, found.ws, found.noise)
    pictures.save_grid(beside, torch.cat([target[None], found.image.float().cpu().clamp(-1, 1)]), columns=2)
    print(f"distance {found.distance:.4g}; the picture and its projection: {beside}; styles: {styles}")
    return 0


def _read(path: Path, side: int, channels: int) -> torch.Tensor:
    """`[C, side, side]` in [-1, 1]."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give one picture")
    try:
        with decode.strict_pillow():
            pixels = decode.decode(decode.open_image(str(path)), side, channels)
    except decode.Unusable as reason:
        raise ValueError(f"{path} cannot be used: {reason}") from None
    return pixels.float() / 127.5 - 1
