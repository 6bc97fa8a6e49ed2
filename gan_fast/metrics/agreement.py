"""Whether class-conditional samples are what was asked for:

    agreement    the share of samples G(z, y) that a classifier h of the real images takes for y,   P(h(G(z, y)) = y)

h never sees a sample. Its own accuracy on held-out real images stands beside the figure: samples as good as real ones
reach it, and chance is one over the number of classes. Source: Shmelkov, Schmid and Alahari, "How good is my GAN?",
ECCV 2018, section 3.1 (there called GAN-test).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gan_fast.metrics.features import Extractor


class Agreement(NamedTuple):
    """share: of all samples. test_accuracy: of the classifier. per_class: by name, of those asked for."""

    share: float
    test_accuracy: float
    per_class: dict[str, float]

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"class agreement            {100 * self.share:8.1f}   % of the samples are of the class asked for, by a "
            f"classifier right on {100 * self.test_accuracy:.1f} % of held-out real images"
        ]
        worst = sorted(self.per_class.items(), key=lambda item: item[1])[:5]
        if worst and len(self.per_class) > 1:
            lines.append("  least: " + "  ".join(f"{name} {100 * share:.1f}" for name, share in worst))
        return lines


def class_agreement(samples: Tensor, requested: Tensor, extractor: Extractor) -> Agreement:
    """Of samples `[N, C, h, h]`, as the extractor sees them, and the class each was asked to be, int64 `[N]`.

    Raises ValueError where the extractor is no classifier, or the classes are not its own, one for each sample.
    """
    predicted = extractor.predictions(samples)
    assert extractor.accuracy is not None
    return agreement_of(predicted, requested, extractor.classes, extractor.accuracy)


def agreement_of(predicted: Tensor, requested: Tensor, classes: tuple[str, ...], test_accuracy: float) -> Agreement:
    """The same from predictions, int64 `[N]`, of any classifier."""
    if requested.shape != predicted.shape or requested.dtype != torch.int64:
        raise ValueError(
            f"requested classes must be int64 [{len(predicted)}], got {requested.dtype} {list(requested.shape)}"
        )
    if len(requested) and not 0 <= int(requested.min()) <= int(requested.max()) < len(classes):
        raise ValueError(
            f"requested classes must be 0 to {len(classes) - 1}, got {int(requested.min())} to {int(requested.max())}"
        )
    right = (predicted == requested).double()
    asked = requested.bincount(minlength=len(classes))
    shares = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, requested, right) / asked
    per_class = {name: float(share) for name, share, n in zip(classes, shares, asked, strict=True) if n}
    return Agreement(float(right.mean()), test_accuracy, per_class)
