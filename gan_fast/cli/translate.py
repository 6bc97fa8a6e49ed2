"""gan-fast translate --run RUN --input FOLDER --direction AtoB --out FOLDER"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gan_fast.cli import UsageError
from gan_fast.cli.parse import parse
from gan_fast.data.loading import find
from gan_fast.data.reading import describe_skipped
from gan_fast.training import evaluation, folder, machine
from gan_fast.training.translation import Translator, pictures_for, read_pictures, write_translations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translate:
    """Translate pictures by a cyclegan or pix2pix run: one PNG for each, and a grid of input, output and what the way
    back makes of it (cyclegan)."""

    run: Path | None = None
    """Run folder or checkpoint. Default: the newest run under runs/."""

    input: Path | None = None
    """Folder or zip of pictures; if it holds testA and testB (or A and B), each is translated its way. Default: the
    run's own held-out pictures."""

    direction: Literal["both", "AtoB", "BtoA"] = "both"
    """Which way. Both: as far as the run translates and the input says what is A and what B; A where it does not."""

    out: Path = Path("translated")
    """Folder to write to: a folder of pictures and a grid for each direction."""

    count: int | None = None
    """At most this many pictures each way. Default: all."""

    grid: int = 16
    """Rows of the grid."""

    keep_size: bool = False
    """Translate each picture at its own size, cropped to what the network takes, not at the size of the training."""

    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if self.grid < 1 or (self.count is not None and self.count < 1):
            raise UsageError(f"grid and count must be at least 1, got {self.grid} and {self.count}")
        if self.keep_size and self.input is None:
            raise UsageError("keep_size is for pictures of --input; the run's own have the size of its training")


def main(argv: Sequence[str]) -> int:
    options = parse(Translate, argv, "translate")
    translator = Translator(options.run or folder.newest(), machine.choose_device(options.device))
    directions = translator.directions
    if options.direction != "both":
        if options.direction not in directions:
            raise UsageError(f"{translator.folder} translates {directions[0]} only")
        directions = (options.direction,)
    pairs = evaluation.pairs_of(translator) if options.input is None else None
    collection = None if options.input is None else find(str(options.input))
    for direction in directions:
        chosen = pairs if collection is None else pictures_for(collection, direction, options.direction == "both")
        if chosen is None:
            continue
        skipped: dict[str, list[str]] = {}
        pictures = read_pictures(translator, chosen, direction, options.count, options.keep_size, skipped)
        count, grid = write_translations(translator, pictures, direction, options.out, options.grid)
        if skipped:
            print(f"skipped {describe_skipped(skipped)}")
        if not count:
            raise ValueError(f"no picture for {direction} in {options.input} can be used")
        print(f"{count} pictures {direction} of {translator.folder}: {options.out / direction}, shown in {grid}")
    return 0
