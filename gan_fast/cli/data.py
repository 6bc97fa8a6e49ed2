"""gan-fast data SPEC [--pack FILE]"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gan_fast import data
from gan_fast.cli.parse import parse


@dataclasses.dataclass(frozen=True)
class Data:
    """Print what is inside some images and whether they can be trained on; pack them into one file."""

    data: Annotated[str, tyro.conf.Positional] = "digits"
    """digits, stacked-digits, fashion-mnist, a folder or zip of images, a packed file, ring8, grid25 or swissroll."""

    pack: Path | None = None
    """Write the images to this file, which trains without decoding: `gan-fast train --data FILE`."""

    resolution: int | None = None
    """Side of the images, a power of two from 8. Default: chosen from the data."""

    channels: int | None = None
    """1 for grey, 3 for colour. Default: the data's own."""

    json: bool = False
    """Print the report as JSON."""


def main(argv: Sequence[str]) -> int:
    options = parse(Data, argv, "data")
    if options.pack is not None:
        packed = data.pack(options.data, options.pack, options.resolution, options.channels)
        skipped = sum(map(len, packed.skipped.values()))
        print(
            f"{packed.path}: {packed.train} training and {packed.held_out} held-out images of "
            f"{packed.channels}x{packed.resolution}x{packed.resolution}, {skipped} files skipped"
        )
        for reason, names in packed.skipped.items():
            print(f"  {len(names)} {reason}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")
        return 0
    report = data.inspect(options.data, resolution=options.resolution, channels=options.channels)
    print(json.dumps(report.to_dict(), indent=1) if options.json else "\n".join(report.lines()))
    return 0 if report.can_train else 1
