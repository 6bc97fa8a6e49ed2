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
    DEFAULT_SOUNDS,
    DEFAULT_STACKED,
    DEFAULT_VOCODED,
    ModeReport,
    QualityReport,
    SoundReport,
    StackedReport,
    VocoderReport,
    evaluate_points,
    evaluate_samples,
    evaluate_sounds,
    evaluate_stacked,
    evaluate_vocoder,
)
from gan_fast.models import build, hifigan
from gan_fast.training.checkpoint import CheckpointError, write_file
from gan_fast.training.folder import RunFolder, run_of
from gan_fast.training.sampling import Sampler

Report = QualityReport | ModeReport | StackedReport | SoundReport | VocoderReport


def evaluate_run(
    path: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    data: data_module.ImageDataset | data_module.PointDataset | data_module.SoundDataset | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> tuple[Report, Path]:
    """The report on `count` samples of a run or checkpoint, and the JSON file it was written to.

    `count` is by default 2,000 images, 10,000 points, 26,000 stacked digits or 1,000 sounds; of a vocoder the number of
    held-out sounds, 32. `data` is the training set; by default
    the recipe's is loaded again.
    """
    from gan_fast import recipes  # the layer above: a checkpoint names its recipe

    sampler = Sampler(path, device)
    if data is None:
        if sampler.state["data"].get("fingerprint") is None:
            raise CheckpointError(
                f"{path} was trained on data given as an object, which cannot be loaded again: pass it as data="
            )
        recipe = sampler.state["recipe"]
        data = recipes.get(recipe["name"], **recipe["settings"]).load_data()
    report: Report
    if isinstance(data, data_module.SoundDataset):
        if isinstance(sampler.generator, hifigan.Generator):
            # What the run's first checkpoint held.
            settings, model = sampler.state["recipe"]["settings"], sampler.state["model"]
            untrained, _ = build(model["name"], seed=settings["seed"], **model["config"])
            assert isinstance(untrained, hifigan.Generator)
            report = evaluate_vocoder(sampler.generator, untrained, data, count or DEFAULT_VOCODED)
        else:
            report = evaluate_sounds(
                sampler.samples(range(seed, seed + (count or DEFAULT_SOUNDS))), data, progress=progress
            )
    elif isinstance(data, data_module.PointDataset):
        report = evaluate_points(sampler.samples(range(seed, seed + (count or DEFAULT_POINTS))), data)
    elif data.name == STACKED_DIGITS and data.resolution == 8:
        report = evaluate_stacked(
            sampler.samples(range(seed, seed + (count or DEFAULT_STACKED))), data, progress=progress
        )
    else:
        samples = sampler.samples(range(seed, seed + (count or DEFAULT_SAMPLES)))
        report = evaluate_samples(samples, data, progress=progress)
    run = run_of(sampler.folder)
    where = (
        RunFolder(run).quality if run is not None else sampler.folder.with_name(f"{sampler.folder.name}-quality.json")
    )
    content = {"checkpoint": str(sampler.folder), "seed": seed, **report.to_dict()}
    write_file(where, json.dumps(content, indent=1).encode())
    return report, where
