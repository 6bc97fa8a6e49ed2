"""The quality of a run: its averaged generator's samples judged by `gan_fast.metrics`, written beside the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from gan_fast import data as data_module
from gan_fast.metrics import DEFAULT_SAMPLES, QualityReport, evaluate_samples
from gan_fast.training.checkpoint import CheckpointError, write_file
from gan_fast.training.folder import RunFolder, run_of
from gan_fast.training.sampling import Sampler


def evaluate_run(
    path: Path,
    *,
    count: int = DEFAULT_SAMPLES,
    seed: int = 0,
    data: data_module.ImageDataset | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> tuple[QualityReport, Path]:
    """The report on `count` samples of a run or checkpoint, and the JSON file it was written to.

    `data` is the training set; by default the recipe's is loaded again.
    """
    sampler = Sampler(path, device)
    if data is None:
        settings = sampler.state["recipe"]["settings"]
        if sampler.state["data"].get("fingerprint") is None:
            raise CheckpointError(
                f"{path} was trained on data given as an object, which cannot be loaded again: pass it as data="
            )
        data = data_module.load(settings["data"], resolution=settings["resolution"], channels=settings["channels"])
    report = evaluate_samples(sampler.images(range(seed, seed + count)), data, progress=progress)
    run = run_of(sampler.folder)
    where = (
        RunFolder(run).quality if run is not None else sampler.folder.with_name(f"{sampler.folder.name}-quality.json")
    )
    content = {"checkpoint": str(sampler.folder), "seed": seed, **report.to_dict()}
    write_file(where, json.dumps(content, indent=1).encode())
    return report, where
