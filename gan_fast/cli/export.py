"""gan-fast export --run RUN --out generator.pt2 generator.onnx"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gan_fast import exporting
from gan_fast.cli import UsageError
from gan_fast.cli.parse import parse
from gan_fast.training import folder
from gan_fast.training.control import Control


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write the averaged generator to files that run without gan_fast, checked against the generator."""

    run: Path | None = None
    """Run folder, checkpoint, or RUN/best. Default: the newest run under runs/."""

    weights: Path | None = None
    """Instead of a run: a file or folder that `gan-fast convert` wrote."""

    out: tuple[Path, ...] = (Path("generator.pt2"),)
    """Files to write: .pt2 for torch.export, .onnx for ONNX (needs the extra [export])."""

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
    control = Control(None if options.weights is not None else options.run or folder.newest(), options.weights)
    print(f"exporting {control.source}", flush=True)
    for exported in exporting.export(control, options.out, options.tolerance):
        print("\n".join(exported.lines()))
    return 0
