"""The quality of a run: its averaged generator's samples judged by `gan_fast.metrics`, written beside the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
    TranslationReport,
    VocoderReport,
    evaluate_points,
    evaluate_samples,
    evaluate_sounds,
    evaluate_stacked,
    evaluate_translation,
    evaluate_vocoder,
)
from gan_fast.metrics.fidelity import (
    FEWEST,
    PROXY,
    WITH_INCEPTION,
    WITH_PROXY,
    FidelityReport,
    ProxyNetwork,
    check_metrics,
    evaluate_fidelity,
)
from gan_fast.metrics.inception import Inception
from gan_fast.metrics.manifolds import PrecisionRecall
from gan_fast.models import build, hifigan
from gan_fast.training.checkpoint import CheckpointError, point_best, read_best, write_file
from gan_fast.training.folder import RunFolder, run_of
from gan_fast.training.sampling import Sampler
from gan_fast.training.translation import Translator

Progress = Callable[[str], None] | None
OwnReport = QualityReport | ModeReport | StackedReport | TranslationReport | SoundReport | VocoderReport


class Judgement(NamedTuple):
    """What a `Judge` found.

    own: by the figures that belong to the kind of data, "proxy"; None where they were not asked for.
    fidelity: by the features of the proxy's network or of Inception.
    """

    samples: int
    own: OwnReport | None
    fidelity: tuple[FidelityReport, ...] = ()

    def lines(self) -> list[str]:
        """For people."""
        reports = [report for report in (self.own, *self.fidelity) if report is not None]
        return [line for report in reports for line in report.lines()]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        own = {} if self.own is None else self.own.to_dict()
        return {**own, "samples": self.samples, "fidelity": [report.to_dict() for report in self.fidelity]}

    @property
    def figures(self) -> dict[str, float]:
        """By name, those that are followed over a run."""
        found: dict[str, float] = {}
        if isinstance(self.own, QualityReport):
            found["proxy_frechet"] = self.own.proxy_frechet
            if self.own.replay is not None:
                found["replay_ratio"] = self.own.replay.ratio
        elif isinstance(self.own, (ModeReport, StackedReport)):
            found |= {name: float(value) for name, value in self.own.figures._asdict().items()}
        for report in self.fidelity:
            found |= report.figures
        return found

    def rank(self, metric: str) -> tuple[float, ...]:
        """By `metric`: of two judgements the lesser is the better."""
        f = self.figures
        prefix = "proxy_" if metric in WITH_PROXY else ""
        if metric == PROXY:
            if isinstance(self.own, ModeReport):
                return -f["caught"], -f["high_quality"]
            if isinstance(self.own, StackedReport):
                return -f["caught"], f["kl"]
            return (f["proxy_frechet"],)
        if metric == "is":
            return (-f["is"],)
        if metric.endswith("precision_recall"):
            return (-PrecisionRecall(f[f"{prefix}precision"], f[f"{prefix}recall"]).f_score,)
        if metric.endswith("density_coverage"):
            return (-f[f"{prefix}coverage"],)
        return (f[metric],)


class Judge:
    """Judges samples against the training data, `data`, by `metrics`; `count` of them, or by default as many as usual.

    What that needs is looked for here, before anything is trained. Raises ValueError for metrics that the data cannot
    have and for too few samples, `InceptionError`, a ValueError, where torch-fidelity or the weights are missing.
    """

    def __init__(
        self,
        data: Any,
        metrics: Sequence[str] = (PROXY,),
        count: int | None = None,
        *,
        inception_weights: str | Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_metrics(metrics)
        if not isinstance(data, (data_module.ImageDataset, data_module.PointDataset)):
            raise ValueError(
                f"samples are judged against a data set of gan_fast (see gan_fast.data), got {type(data).__name__}: "
                "leave metrics and evaluate_kimg out"
            )
        others = [name for name in metrics if name != PROXY]
        if others and isinstance(data, data_module.PointDataset):
            raise ValueError(f"{', '.join(others)} judge images, and {data.name} holds points: use --metrics {PROXY}")
        self.data = data
        self.metrics = tuple(metrics)
        self.count = count or self._usual()
        if others and min(self.count, len(data)) < FEWEST:
            raise ValueError(
                f"{', '.join(others)} need at least {FEWEST} samples and as many images, "
                f"got {self.count} and {len(data)}"
            )
        self._proxy: ProxyNetwork | None = None
        self._inception: Inception | None = None
        if any(name in WITH_INCEPTION for name in metrics):
            self._inception = Inception(inception_weights, device)

    def _usual(self) -> int:
        if isinstance(self.data, data_module.PointDataset):
            return DEFAULT_POINTS
        return DEFAULT_STACKED if _stacked(self.data) else DEFAULT_SAMPLES

    def __call__(self, samples: Tensor, progress: Progress = None, requested: Tensor | None = None) -> Judgement:
        """Judge images `[N, C, H, H]` in [-1, 1], or points `[N, D]`; `requested` `[N]`: the classes asked for."""
        own = self._own(samples, progress, requested) if PROXY in self.metrics else None
        fidelity = []
        if isinstance(self.data, data_module.ImageDataset):
            by_proxy = [name for name in self.metrics if name in WITH_PROXY]
            if by_proxy:
                self._proxy = self._proxy or ProxyNetwork(self.data, progress)
                fidelity.append(evaluate_fidelity(samples, self.data, by_proxy, self._proxy, progress=progress))
            if self._inception is not None:
                asked = [name for name in self.metrics if name in WITH_INCEPTION]
                fidelity.append(evaluate_fidelity(samples, self.data, asked, self._inception, progress=progress))
        return Judgement(len(samples), own, tuple(fidelity))

    def _own(self, samples: Tensor, progress: Progress, requested: Tensor | None) -> OwnReport:
        if isinstance(self.data, data_module.PointDataset):
            return evaluate_points(samples, self.data)
        if _stacked(self.data):
            return evaluate_stacked(samples, self.data, requested=requested, progress=progress)
        return evaluate_samples(samples, self.data, requested=requested, progress=progress)


def _stacked(data: data_module.ImageDataset) -> bool:
    return data.name == STACKED_DIGITS and data.resolution == 8


def evaluate_run(
    path: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    data: data_module.ImageDataset
    | data_module.PairDataset
    | data_module.PointDataset
    | data_module.SoundDataset
    | None = None,
    device: str = "cpu",
    progress: Progress = None,
    metrics: Sequence[str] | None = None,
    inception_weights: str | Path | None = None,
) -> tuple[Judgement, Path]:
    """The judgement on `count` samples of a run or checkpoint, and the JSON file it was written to.

    `count` is by default 2,000 images, 10,000 points, 26,000 stacked digits or 1,000 sounds; of a vocoder the number of
    held-out sounds, 32. `data` is the training set; by default the recipe's is loaded again. `metrics` and
    `inception_weights` are by default the recipe's.
    """
    from gan_fast import recipes  # the layer above: a checkpoint names its recipe

    sampler = Sampler(path, device)
    settings = sampler.state["recipe"]["settings"]
    if not sampler.latent_size and not isinstance(sampler.generator, hifigan.Generator):
        report = _evaluate_translator(Translator(path, device), data, count, progress)
        judgement = Judgement(max(f.images for f in report.directions.values()), report)
        return judgement, write_judgement(judgement, sampler.folder, seed)
    if data is None:
        if sampler.state["data"].get("fingerprint") is None:
            raise CheckpointError(
                f"{path} was trained on data given as an object, which cannot be loaded again: pass it as data="
            )
        recipe = sampler.state["recipe"]
        data = recipes.get(recipe["name"], **recipe["settings"]).load_data()
    if isinstance(data, data_module.SoundDataset):
        heard = _evaluate_sounds(sampler, data, count, seed, progress)
        judgement = Judgement(heard.samples if isinstance(heard, SoundReport) else heard.sounds, heard)
        return judgement, write_judgement(judgement, sampler.folder, seed)
    assert not isinstance(data, data_module.PairDataset)
    judge = Judge(
        data,
        metrics or settings.get("metrics", (PROXY,)),
        count,
        inception_weights=inception_weights or settings.get("inception_weights"),
        device=device,
    )
    seeds = range(seed, seed + judge.count)
    judgement = judge(sampler.samples(seeds), progress, sampler.requested(seeds))
    return judgement, write_judgement(judgement, sampler.folder, seed)


def write_judgement(judgement: Judgement, checkpoint: Path, seed: int) -> Path:
    """Write it beside the run that `checkpoint` lies in, or beside the checkpoint; returns the file."""
    run = run_of(checkpoint)
    where = RunFolder(run).quality if run is not None else checkpoint.with_name(f"{checkpoint.name}-quality.json")
    content = {"checkpoint": str(checkpoint), "seed": seed, **judgement.to_dict()}
    write_file(where, json.dumps(content, indent=1).encode())
    return where


def keep_if_best(run: Path, checkpoint: Path, judgement: Judgement, metric: str) -> bool:
    """Make `checkpoint` the best of its run if it is; whether it is.

    One that was judged by another metric, or by another number of samples, does not compare and gives way.
    """
    before = read_best(run)
    judged: dict[str, Any] = {"metric": metric, "samples": judgement.samples, "rank": list(judgement.rank(metric))}
    if before is not None:
        same = all(before[1].get(name) == judged[name] for name in ("metric", "samples"))
        if same and tuple(before[1]["rank"]) <= tuple(judged["rank"]):
            return False
    point_best(run, checkpoint, {**judged, "figures": judgement.figures})
    return True


def _evaluate_sounds(
    sampler: Sampler, data: data_module.SoundDataset, count: int | None, seed: int, progress: Progress
) -> SoundReport | VocoderReport:
    if isinstance(sampler.generator, hifigan.Generator):
        # What the run's first checkpoint held.
        settings, model = sampler.state["recipe"]["settings"], sampler.state["model"]
        untrained, _ = build(model["name"], seed=settings["seed"], **model["config"])
        assert isinstance(untrained, hifigan.Generator)
        return evaluate_vocoder(sampler.generator, untrained, data, count or DEFAULT_VOCODED)
    seeds = range(seed, seed + (count or DEFAULT_SOUNDS))
    return evaluate_sounds(sampler.samples(seeds), data, progress=progress)


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
