"""gan-fast export --run RUN --out generator.pt2 generator.onnx"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gan_fast import exporting
from gan_fast.cli import UsageError
from gan_fast.cli.parse import parse
from gan_fast.training import folder
from gan_fast.training.control import Control
from gan_fast.training.translation import Translator
from gan_fast.training.vocoding import Vocoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write the averaged generator to files that run without gan_fast, checked against the generator."""

    run: Path | None = None
    """Run folder, checkpoint, or RUN/best. Default: the newest run under runs/."""

    weights: Path | None = None
    """Instead of a run: a file or folder that `gan-fast convert` wrote."""

    out: tuple[Path, ...] = (Path("generator.pt2"),)
    """Files to write: .pt2 for torch.export, .onnx for ONNX (needs the extra [export])."""

    direction: Literal["AtoB", "BtoA"] | None = None
    """Of a run that translates both ways: which generator to write."""

    tolerance: float = exporting.TOLERANCE
    """The largest difference from the generator that is accepted; pictures are in [-1, 1]."""

    def __post_init__(self) -> None:
        if self.run is not None and self.weights is not None:
            raise UsageError("give --run or --weights, not both")
        if not self.out or not self.tolerance > 0:
            raise UsageError("out must name at least one file, and tolerance be greater than 0")


def main(argv: Sequence[str]) -> int:
    options = parse(Export, argv, "export")
    exporting.check_paths(options.out)
    if options.weights is not None:
        source: Control | Translator | Vocoder = Control(None, options.weights)
    else:
        source = exporting.open_run(options.run or folder.newest())
    print(f"exporting {options.weights or options.run or folder.newest()}", flush=True)
    for exported in exporting.export(source, options.out, options.tolerance, options.direction):
        print("\n".join(exported.lines()))
    return 0
