"""How good translated pictures are: in the style asked for, with the content they had, and really changed.

    style     proxy Frechet distance of G(x) to the target's training pictures, beside x's own and held-out real ones'
    content   where both kinds have classes, the share whose class by a classifier of the source is that of G(x) by one
              of the target
    change    mean |G(x) - x|, as a share of the range of values
    cycle     mean |F(G(x)) - x|
    answer    mean |G(x) - y| where the right translation y is known

A generator that copies has a style ratio of 1 and no change, one that ignores its input no content; so read them
together. Pictures that are not square, or whose side is no power of two, are judged at 32x32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.data import ImageDataset, PairDataset
from gan_fast.metrics.features import LARGEST_SEEN, as_seen, extractor_for, has_classifier, seen_pixels
from gan_fast.metrics.figures import proxy_frechet
from gan_fast.metrics.frechet import moments


@dataclasses.dataclass(frozen=True)
class TranslationFigures:
    """Of one direction. Shares of the range of values for change, cycle_error, answer_error; None where not known.

    Attributes:
        images: how many were translated.
        style: proxy Frechet distance of translated pictures to the target's training pictures.
        source_style: of the inputs themselves.
        real_style: of the target's held-out pictures.
        agreement: share of pictures that are of one class before and after, by a classifier of each kind.
        right: share that are after translation of the class their label says.
        accuracies: of the two classifiers, on held-out pictures of source and target.
    """

    images: int
    style: float
    source_style: float
    real_style: float | None
    change: float
    cycle_error: float | None
    answer_error: float | None
    agreement: float | None
    right: float | None
    accuracies: tuple[float, float] | None

    @property
    def style_ratio(self) -> float:
        """1 for a copy of the input."""
        return self.style / max(self.source_style, 1e-12)


@dataclasses.dataclass(frozen=True)
class TranslationReport:
    """What `evaluate_translation` found, by direction."""

    data: str
    held_out: bool
    directions: dict[str, TranslationFigures]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        plain = dataclasses.asdict(self)
        for name, figures in self.directions.items():
            plain["directions"][name]["style_ratio"] = figures.style_ratio
        return plain

    def lines(self) -> list[str]:
        """For people."""
        kind = "held-out" if self.held_out else "training"
        lines = [f"translations of {kind} images of {self.data}"]
        for name, f in self.directions.items():
            real = "" if f.real_style is None else f", held-out real ones {f.real_style:.2f}"
            lines += [
                f"{name}, {f.images:,} images",
                f"  style     proxy Frechet distance to the target {f.style:8.2f}   the inputs' own "
                f"{f.source_style:.2f} (ratio {f.style_ratio:.3f}){real}",
            ]
            if f.agreement is not None and f.right is not None and f.accuracies is not None:
                lines.append(
                    f"  content   same class before and after   {100 * f.agreement:6.1f} %   that of the label "
                    f"{100 * f.right:.1f} %; classifiers of {100 * f.accuracies[0]:.1f} % and "
                    f"{100 * f.accuracies[1]:.1f} % test accuracy"
                )
            back = "" if f.cycle_error is None else f"   after the way back {100 * f.cycle_error:.1f} %"
            lines.append(f"  change    mean |output - input|         {100 * f.change:6.1f} % of the range{back}")
            if f.answer_error is not None:
                lines.append(f"  answer    mean |output - right output|  {100 * f.answer_error:6.1f} % of the range")
        return lines


def evaluate_translation(
    pairs: PairDataset,
    translate: Callable[[Tensor, str], tuple[Tensor, Tensor | None]],
    directions: tuple[str, ...],
    *,
    count: int,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> TranslationReport:
    """Judge `translate(x, direction)`, which gives outputs and cycled inputs, on held-out pictures, or on the training
    pictures where none are held out.

    Args:
        pairs: the training set.
        count: at most this many pictures of each kind.
        seed: of the feature networks, which are trained at the first call and kept on disk.
    """
    judged = pairs.held_out or pairs
    found = {}
    for direction in directions:
        order = (0, 1) if direction == "AtoB" else (1, 0)
        source, target = (_squared((pairs.a, pairs.b)[i]) for i in order)
        inputs, answers = ((judged.a, judged.b)[i] for i in order)
        chosen = torch.arange(min(count, len(inputs)))
        x = inputs.float_batch(chosen)
        y, cycled = translate(x, direction)
        extractor = extractor_for(target, seed=seed, progress=progress)
        reference = moments(extractor.features(seen_pixels(target)))
        before, after = (_seen(images) for images in (x, y))
        real = None
        if target.held_out is not None:
            real = proxy_frechet(seen_pixels(target.held_out)[:count], reference, extractor)
        agreement, right, accuracies = None, None, None
        if has_classifier(source) and has_classifier(target) and source.classes == target.classes:
            of_source = extractor_for(source, seed=seed, progress=progress)
            assert of_source.accuracy is not None and extractor.accuracy is not None and inputs.labels is not None
            predicted = extractor.predictions(after)
            agreement = float((of_source.predictions(before) == predicted).double().mean())
            right = float((inputs.labels[chosen] == predicted).double().mean())
            accuracies = (of_source.accuracy, extractor.accuracy)
        found[direction] = TranslationFigures(
            images=len(x),
            style=proxy_frechet(after, reference, extractor),
            source_style=proxy_frechet(before, reference, extractor),
            real_style=real,
            change=_difference(y, x),
            cycle_error=None if cycled is None else _difference(cycled, x),
            answer_error=_difference(y, answers.float_batch(chosen)) if judged.aligned else None,
            agreement=agreement,
            right=right,
            accuracies=accuracies,
        )
    return TranslationReport(pairs.name, judged is not pairs, found)


def _difference(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference of values in [-1, 1], as a share of their range."""
    return float((a - b).abs().double().mean()) / 2


def _plain(height: int, width: int) -> bool:
    return height == width and height & (height - 1) == 0


def _seen(images: Tensor) -> Tensor:
    if _plain(*images.shape[2:]):
        return as_seen(images)
    return F.interpolate(images, (LARGEST_SEEN, LARGEST_SEEN), mode="area")


def _squared(dataset: ImageDataset) -> ImageDataset:
    """The data set as it can be judged."""
    if _plain(*dataset.shape[1:]):
        return dataset
    parts = [_seen(part.float()).round_().clamp_(0, 255).to(torch.uint8) for part in dataset.images.split(256)]
    return ImageDataset(
        torch.cat(parts) if parts else dataset.images.new_zeros(0, dataset.channels, LARGEST_SEEN, LARGEST_SEEN),
        dataset.labels,
        classes=dataset.classes,
        name=dataset.name,
        split=dataset.split,
        held_out=lambda: None if dataset.held_out is None else _squared(dataset.held_out),
    )
