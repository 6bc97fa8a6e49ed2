"""`inspect(spec)`: everything about some data that a person wants to know before training on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gan_fast.data.dataset import ImageDataset
from gan_fast.data.loading import BUILT_IN, FEWEST_TO_TRAIN, find, load, load_images
from gan_fast.data.packing import looks_packed
from gan_fast.data.points import PointDataset
from gan_fast.data.reading import choose_shape, decode_all, split_of
from gan_fast.data.toy import TOYS


@dataclass
class InspectReport:
    """What is in some data.

    Attributes:
        name: of the data.
        resolution, channels: what it would be trained at.
        usable, held_out: images that can be used, and how many of them are kept away from training.
        modes: images per Pillow mode (L, RGB, RGBA, ...).
        sizes: images per shorter side, in powers of two: 64 stands for 64 to 127 pixels.
        classes: images per class, in the order of the labels; empty without labels.
        duplicates: usable images whose pixels at `resolution` equal those of an earlier one.
        skipped: for every reason, the files left out.
        obstacles: why it cannot be trained on; empty when it can.
    """

    name: str
    resolution: int
    channels: int
    usable: int = 0
    held_out: int = 0
    modes: dict[str, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    obstacles: list[str] = field(default_factory=list)

    @property
    def can_train(self) -> bool:
        return not self.obstacles

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "can_train": self.can_train}

    def lines(self) -> list[str]:
        """For people."""
        colour = "grey" if self.channels == 1 else "RGB"
        lines = [
            f"{self.name}: {self.usable} images, {self.held_out} of them held out to judge by",
            f"trained at {self.resolution}x{self.resolution} {colour}",
            "modes: " + ", ".join(f"{mode} {count}" for mode, count in self.modes.items()),
            "shorter sides: " + ", ".join(f"{side}-{2 * side - 1} px {count}" for side, count in self.sizes.items()),
        ]
        if self.classes:
            shown = [f"{name} {count}" for name, count in self.classes.items()]
            more = f", and {len(shown) - 20} more" if len(shown) > 20 else ""
            lines.append(f"{len(shown)} classes: " + ", ".join(shown[:20]) + more)
        lines.append(f"duplicates: {self.duplicates}")
        for reason, names in sorted(self.skipped.items(), key=lambda item: -len(item[1])):
            more = ", ..." if len(names) > 3 else ""
            lines.append(f"skipped {len(names)}: {reason} ({', '.join(names[:3])}{more})")
        lines += [f"cannot train: {obstacle}" for obstacle in self.obstacles] or ["ready to train"]
        return lines


@dataclass
class PointReport:
    """What is in a set of points.

    Attributes:
        name: of the data.
        usable, held_out: points, and how many of them are kept away from training.
        dimensions: of a point.
        modes, parts, sd: how many modes the distribution has, what they are, and the noise around them.
        low, high: of the coordinates.
    """

    name: str
    usable: int
    held_out: int
    dimensions: int
    modes: int
    parts: str
    sd: float
    low: float
    high: float

    can_train = True

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "can_train": self.can_train}

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.name}: {self.usable:,} points of {self.dimensions} coordinates between {self.low:.2f} and "
            f"{self.high:.2f}, {self.held_out:,} of them held out",
            f"{self.modes} {self.parts}, standard deviation {self.sd:.3g}",
            "ready to train",
        ]


def inspect(
    spec: str | os.PathLike[str],
    *,
    resolution: int | None = None,
    channels: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> InspectReport | PointReport:
    """Decode everything once and report. Raises DataError where there is nothing to decode at all."""
    spec = os.fspath(spec)
    path = Path(spec).expanduser()
    if spec in TOYS:
        return _of_points(spec, resolution, channels)
    if spec.partition(":")[0] in BUILT_IN or (path.is_file() and looks_packed(path)):
        return _of_dataset(load_images(spec, resolution, channels))
    collection = find(spec)
    resolution, channels = choose_shape(collection, resolution, channels)
    report = InspectReport(collection.name, resolution, channels)
    report.skipped = {reason: list(names) for reason, names in collection.refused.items()}
    held = set(split_of(collection)[1].tolist())
    modes: Counter[str] = Counter()
    sizes: Counter[int] = Counter()
    classes: Counter[int] = Counter()
    seen: set[bytes] = set()
    total = len(collection.candidates)
    for done, outcome in enumerate(decode_all(collection.candidates, range(total), resolution, channels), 1):
        if progress is not None:
            progress(done, total)
        if outcome.mode:
            modes[outcome.mode] += 1
            sizes[_power_of_two(min(outcome.size))] += 1
        if outcome.pixels is None:
            report.skipped.setdefault(outcome.reason, []).append(collection.candidates[outcome.index].name)
            continue
        report.usable += 1
        report.held_out += outcome.index in held
        seen.add(hashlib.sha256(outcome.pixels.numpy().data).digest())
        if collection.labels is not None:
            classes[collection.labels[outcome.index]] += 1
    report.modes, report.sizes = dict(modes.most_common()), dict(sorted(sizes.items()))
    report.classes = {name: classes[i] for i, name in enumerate(collection.classes)}
    report.duplicates = report.usable - len(seen)
    return _judged(report, len(seen))


def _of_points(spec: str, resolution: int | None, channels: int | None) -> PointReport:
    everything = load(spec, resolution=resolution, channels=channels, split="all")
    assert isinstance(everything, PointDataset) and everything.toy is not None
    toy, points = everything.toy, everything.points
    low, high = points.aminmax()
    held_out = len(load(spec, split="test"))
    return PointReport(
        spec, len(points), held_out, points.shape[1], toy.modes, toy.parts, toy.sd, float(low), float(high)
    )


def _of_dataset(dataset: ImageDataset) -> InspectReport:
    parts = [dataset] + ([dataset.held_out] if dataset.held_out is not None else [])
    count = sum(map(len, parts))
    report = InspectReport(dataset.name, dataset.resolution, dataset.channels, usable=count)
    report.held_out = count - len(dataset)
    report.modes = {"L" if dataset.channels == 1 else "RGB": count}
    report.sizes = {dataset.resolution: count}
    if dataset.labels is not None:
        labels = torch.cat([part.labels for part in parts if part.labels is not None])
        per_class = torch.bincount(labels, minlength=len(dataset.classes)).tolist()
        report.classes = dict(zip(dataset.classes, per_class, strict=True))
    digests = {hashlib.sha256(image.numpy().data).digest() for part in parts for image in part.images}
    report.duplicates = count - len(digests)
    return _judged(report, len(digests))


def _judged(report: InspectReport, different: int) -> InspectReport:
    if report.usable - report.held_out < FEWEST_TO_TRAIN:
        report.obstacles.append(
            f"{report.usable - report.held_out} usable training images at {report.resolution} pixels, "
            f"at least {FEWEST_TO_TRAIN} are needed"
        )
    elif different < FEWEST_TO_TRAIN:
        report.obstacles.append("all images are the same")
    return report


def _power_of_two(side: int) -> int:
    return 1 << max(side.bit_length() - 1, 0)
