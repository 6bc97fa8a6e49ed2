"""The quality of a run: its averaged generator's samples judged by `gan_fast.metrics`, written beside the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from gan_fast import data as data_module
from gan_fast.data.stacked import NAME as STACKED_DIGITS
from gan_fast.metrics import (
    DEFAULT_POINTS,
    DEFAULT_SAMPLES,
    DEFAULT_STACKED,
    ModeReport,
    QualityReport,
    StackedReport,
    evaluate_points,
    evaluate_samples,
    evaluate_stacked,
)
from gan_fast.training.checkpoint import CheckpointError, write_file
from gan_fast.training.folder import RunFolder, run_of
from gan_fast.training.sampling import Sampler


def evaluate_run(
    path: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    data: data_module.ImageDataset | data_module.PointDataset | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> tuple[QualityReport | ModeReport | StackedReport, Path]:
    """The report on `count` samples of a run or checkpoint, and the JSON file it was written to.

    `count` is by default 2,000 images, 10,000 points or 26,000 stacked digits. `data` is the training set; by default
    the recipe's is loaded again.
    """
    sampler = Sampler(path, device)
    if data is None:
        settings = sampler.state["recipe"]["settings"]
        if sampler.state["data"].get("fingerprint") is None:
            raise CheckpointError(
                f"{path} was trained on data given as an object, which cannot be loaded again: pass it as data="
            )
        data = data_module.load(settings["data"], resolution=settings["resolution"], channels=settings["channels"])
    report: QualityReport | ModeReport | StackedReport
    if isinstance(data, data_module.PointDataset):
        report = evaluate_points(sampler.samples(range(seed, seed + (count or DEFAULT_POINTS))), data)
    elif data.name == STACKED_DIGITS and data.resolution == 8:
        seeds = range(seed, seed + (count or DEFAULT_STACKED))
        report = evaluate_stacked(sampler.samples(seeds), data, requested=sampler.requested(seeds), progress=progress)
    else:
        seeds = range(seed, seed + (count or DEFAULT_SAMPLES))
        report = evaluate_samples(sampler.samples(seeds), data, requested=sampler.requested(seeds), progress=progress)
    run = run_of(sampler.folder)
    where = (
        RunFolder(run).quality if run is not None else sampler.folder.with_name(f"{sampler.folder.name}-quality.json")
    )
    content = {"checkpoint": str(sampler.folder), "seed": seed, **report.to_dict()}
    write_file(where, json.dumps(content, indent=1).encode())
    return report, where
