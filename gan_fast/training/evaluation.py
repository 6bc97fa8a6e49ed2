"""The quality of a run: its averaged generator's samples judged by `gan_fast.metrics`, written beside the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from gan_fast import data as data_module
from gan_fast.data.stacked import NAME as STACKED_DIGITS
from gan_fast.metrics import (
    DEFAULT_POINTS,
    DEFAULT_SAMPLES,
    DEFAULT_STACKED,
    ModeReport,
    QualityReport,
    StackedReport,
    TranslationReport,
    evaluate_points,
    evaluate_samples,
    evaluate_stacked,
    evaluate_translation,
)
from gan_fast.training.checkpoint import CheckpointError, write_file
from gan_fast.training.folder import RunFolder, run_of
from gan_fast.training.sampling import Sampler
from gan_fast.training.translation import Translator


def evaluate_run(
    path: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    data: data_module.ImageDataset | data_module.PairDataset | data_module.PointDataset | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> tuple[QualityReport | ModeReport | StackedReport | TranslationReport, Path]:
    """The report on `count` samples of a run or checkpoint, and the JSON file it was written to.

    `count` is by default 2,000 images, 10,000 points or 26,000 stacked digits. `data` is the training set; by default
    the recipe's is loaded again.
    """
    sampler = Sampler(path, device)
    report: QualityReport | ModeReport | StackedReport | TranslationReport
    if not sampler.latent_size:
        report = _evaluate_translator(Translator(path, device), data, count, progress)
        return report, _write(sampler, report, seed)
    if data is None:
        settings = sampler.state["recipe"]["settings"]
        if sampler.state["data"].get("fingerprint") is None:
            raise CheckpointError(
                f"{path} was trained on data given as an object, which cannot be loaded again: pass it as data="
            )
        data = data_module.load(settings["data"], resolution=settings["resolution"], channels=settings["channels"])
    assert not isinstance(data, data_module.PairDataset)
    if isinstance(data, data_module.PointDataset):
        report = evaluate_points(sampler.samples(range(seed, seed + (count or DEFAULT_POINTS))), data)
    elif data.name == STACKED_DIGITS and data.resolution == 8:
        report = evaluate_stacked(
            sampler.samples(range(seed, seed + (count or DEFAULT_STACKED))), data, progress=progress
        )
    else:
        samples = sampler.samples(range(seed, seed + (count or DEFAULT_SAMPLES)))
        report = evaluate_samples(samples, data, progress=progress)
    return report, _write(sampler, report, seed)


def pairs_of(translator: Translator) -> data_module.PairDataset:
    """What a run that translates was trained on: its held-out pictures, or all where there are none."""
    pairs = _training_pairs(translator)
    return pairs.held_out or pairs


def _training_pairs(translator: Translator) -> data_module.PairDataset:
    from gan_fast import recipes  # the layer above: a checkpoint names its recipe

    recipe = translator.state["recipe"]
    pairs = recipes.get(recipe["name"], **recipe["settings"]).load_data()
    assert isinstance(pairs, data_module.PairDataset)
    if pairs.fingerprint != translator.state["data"].get("fingerprint"):
        raise CheckpointError(
            f"{translator.folder} was trained on other pictures than {pairs.name} has now, or on an object: pass them "
            "as data=, or as --input"
        )
    return pairs


def _evaluate_translator(
    translator: Translator, data: Any, count: int | None, progress: Callable[[str], None] | None
) -> TranslationReport:
    pairs = _training_pairs(translator) if data is None else data
    if not isinstance(pairs, data_module.PairDataset):
        raise ValueError(f"translations are judged with a gan_fast.data.PairDataset, got {type(pairs).__name__}")
    directions = translator.directions

    def translate(x: Tensor, direction: str) -> tuple[Tensor, Tensor | None]:
        way = directions[directions.index(direction)]
        y = translator.translate(x, way)
        return y, translator.cycled(y, way)

    return evaluate_translation(pairs, translate, directions, count=count or DEFAULT_SAMPLES, progress=progress)


def _write(sampler: Sampler, report: QualityReport | ModeReport | StackedReport | TranslationReport, seed: int) -> Path:
    run = run_of(sampler.folder)
    where = (
        RunFolder(run).quality if run is not None else sampler.folder.with_name(f"{sampler.folder.name}-quality.json")
    )
    content = {"checkpoint": str(sampler.folder), "seed": seed, **report.to_dict()}
    write_file(where, json.dumps(content, indent=1).encode())
    return where
