"""gan-fast convert NETWORK.pkl FOLDER"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gan_fast.cli.parse import parse
from gan_fast.models.stylegan2 import convert


@dataclasses.dataclass(frozen=True)
class Convert:
    """Convert a StyleGAN2 network pickle of NVIDIA's PyTorch code bases to safetensors, running nothing of it."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="NETWORK.pkl")]
    """The pickle."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder for G.safetensors, D.safetensors and G_ema.safetensors, whichever the pickle has."""


def main(argv: Sequence[str]) -> int:
    options = parse(Convert, argv, "convert")
    for name, path in convert(options.source, options.folder).items():
        print(f"{name}: {path}")
    return 0
