"""The folder of a run:

RUN/latest                       names the newest checkpoint
RUN/best                         names the best, where samples are judged while it trains
RUN/checkpoints/000012800/       see gan_fast.training.checkpoint; named by critic steps
RUN/samples.png  losses.png      refreshed at every snapshot; of sounds, samples/*.wav too
RUN/log.jsonl                    one line of losses per reading
RUN/tensorboard/                 the same for TensorBoard
RUN/warnings.jsonl               one line for each warning: what, when, the figures, and its picture
RUN/warnings/                    the samples of that step
RUN/quality.json                 the last evaluation
RUN/evaluations.jsonl            one line of figures per evaluation while it trains
"""

from __future__ import annotations

import re
from pathlib import Path

from gan_fast.training.checkpoint import LATEST_FILE, CheckpointError

RUNS = Path("runs")


class RunFolder:
    """Paths inside a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples.png"
        self.losses = path / "losses.png"
        self.log = path / "log.jsonl"
        self.tensorboard = path / "tensorboard"
        self.quality = path / "quality.json"
        self.evaluations = path / "evaluations.jsonl"
        self.warnings = path / "warnings.jsonl"
        self.warning_pictures = path / "warnings"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{step:09d}"

    def start(self) -> None:
        """Create the folder of a new run; ValueError where it already holds one."""
        if (self.path / LATEST_FILE).exists():
            raise ValueError(
                f"{self.path} already holds a run: go on with `gan-fast resume {self.path}`, or choose another --out"
            )
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file: choose another --out")
        self.checkpoints.mkdir(parents=True, exist_ok=True)


def next_free(recipe: str, data: str) -> Path:
    """runs/NNNN-recipe-data with the next number."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(data).name).strip("-").lower() or "data"
    taken = [int(match[1]) for path in RUNS.glob("*") if (match := re.match(r"(\d{4,})-", path.name))]
    return RUNS / f"{max(taken, default=0) + 1:04d}-{recipe}-{name}"


def newest() -> Path:
    """The run under runs/ that saved last."""
    found = sorted(RUNS.glob(f"*/{LATEST_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CheckpointError(f"no run in {RUNS}/: train one with `gan-fast train`, or name a run with --run")
    return found[-1].parent


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if any."""
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == "checkpoints" else None
