"""How many of the 1,000 modes of stacked digits samples cover. The mode of a picture is what a classifier of single
digits reads in its three channels, 100 a + 10 b + c, and with q the histogram of all samples over modes

    caught    modes with at least one sample
    KL        sum_k q_k log(1000 q_k), q against uniform; nats
    replay    of every channel the distance to the nearest training digit, beside held-out digits' own

26,000 samples are usual. Sources: Metz et al., "Unrolled Generative Adversarial Networks", 2017, section 3.3;
Srivastava et al., "VEEGAN", 2017, section 4.1; Lin et al., "PacGAN", 2018, section 4.2.

Read the figures together: a Gaussian of the pixels reaches most modes, but unevenly, which the KL shows; and the KL of
n perfect samples is not 0 but about 999 / 2n. So a Gaussian and held-out pictures stand beside the samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_fast.data import ImageDataset, load
from gan_fast.data.stacked import MODES, NAME, draw
from gan_fast.metrics.agreement import Agreement, agreement_of
from gan_fast.metrics.features import Extractor, extractor_for, seen_pixels
from gan_fast.metrics.figures import Replay, gaussian_baseline, nearest_distances, replay

DEFAULT_STACKED = 26_000
# Enough pictures for the Gaussian's mean and covariance of 192 pixels, and for the replay check's median.
_FITTED, _COMPARED = 10_000, 2_000


class StackedFigures(NamedTuple):
    """caught: of 1,000 modes. kl: of their histogram to uniform, in nats."""

    caught: int
    kl: float


@dataclasses.dataclass(frozen=True)
class StackedReport:
    """What `evaluate_stacked` found.

    Attributes:
        samples: how many were judged.
        test_accuracy: of the classifier of single digits, on held-out ones.
        figures, gaussian, real: of the samples, of as many of a Gaussian fitted to training pixels, of as many pictures
            stacked from held-out digits.
        replay: of single channels.
        agreement: of class-conditional samples with the modes asked for; None of others.
    """

    samples: int
    test_accuracy: float
    figures: StackedFigures
    gaussian: StackedFigures
    real: StackedFigures
    replay: Replay
    agreement: Agreement | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        plain = dataclasses.asdict(self)
        names = [name for name in ("figures", "gaussian", "real", "replay", "agreement") if plain[name] is not None]
        return {"data": NAME, **plain, **{name: getattr(self, name)._asdict() for name in names}}

    def lines(self) -> list[str]:
        """For people."""
        rows = [("samples", self.figures), ("Gaussian", self.gaussian), ("real", self.real)]
        return [
            f"{self.samples:,} samples against {NAME}; digits read by a classifier "
            f"({100 * self.test_accuracy:.1f} % test accuracy)",
            f"  {'':<10} modes caught   KL of modes to uniform",
            *(f"  {name:<10} {row.caught:5d}/{MODES:<5d}    {row.kl:8.4f}" for name, row in rows),
            f"replay ratio {self.replay.ratio:.2f}   of single channels: median distance to the nearest training digit "
            f"{self.replay.median:.2f}, held-out digits' own {self.replay.held_out_median:.2f}; "
            f"near copies {100 * self.replay.copies:.1f} %",
            *([] if self.agreement is None else self.agreement.lines()),
        ]


def modes_of(samples: Tensor, extractor: Extractor) -> Tensor:
    """The mode of each picture `[N, 3, 8, 8]` in [-1, 1], int64 `[N]`, by a classifier of single digits."""
    digits = extractor.predictions(samples.reshape(-1, 1, *samples.shape[2:])).view(-1, 3)
    return digits @ torch.tensor([100, 10, 1])


def stacked_figures(modes: Tensor) -> StackedFigures:
    """From the mode of each sample, int64 `[N]`."""
    counts = modes.bincount(minlength=MODES).double()
    share = counts / len(modes)
    return StackedFigures(int((counts > 0).sum()), float(torch.special.xlogy(share, share * MODES).sum()))


def evaluate_stacked(
    samples: Tensor,
    dataset: ImageDataset,
    *,
    requested: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> StackedReport:
    """Judge samples `[N, 3, 8, 8]` in [-1, 1] by the modes they cover; N = 26,000 is usual.

    `dataset` is the training split of stacked digits, `requested` the mode that each class-conditional sample was asked
    to be, int64 `[N]`. Raises ValueError for samples of another shape or not finite.
    """
    if tuple(samples.shape[1:]) != dataset.shape or dataset.shape != (3, 8, 8) or len(samples) < 2:
        raise ValueError(
            f"stacked digits are judged at [N, 3, 8, 8], N >= 2; got samples {list(samples.shape)} of data with "
            f"{list(dataset.shape)}"
        )
    samples = samples.detach().to("cpu", torch.float32)
    if not samples.isfinite().all():
        raise ValueError("samples must be finite; some are infinite or NaN")
    digits = load("digits")
    assert isinstance(digits, ImageDataset) and digits.held_out is not None
    extractor = extractor_for(digits, seed=seed, progress=progress)
    assert extractor.accuracy is not None
    fitted = dataset.float_batch(torch.arange(min(_FITTED, len(dataset))))
    # A draw that neither split has: both have small seeds.
    real, real_modes = draw(len(samples), 10_000 + seed, "test")
    train, unseen = seen_pixels(digits), seen_pixels(digits.held_out)
    channels = samples[:_COMPARED].reshape(-1, 1, 8, 8)
    modes, read = (modes_of(x, extractor) for x in (samples, real.to(torch.float32) / 127.5 - 1))
    accuracy = float((read == real_modes).double().mean())
    return StackedReport(
        samples=len(samples),
        test_accuracy=extractor.accuracy,
        figures=stacked_figures(modes),
        gaussian=stacked_figures(modes_of(gaussian_baseline(fitted, len(samples), seed), extractor)),
        real=stacked_figures(read),
        replay=replay(nearest_distances(channels, train), nearest_distances(unseen, train)),
        agreement=None if requested is None else agreement_of(modes, requested, dataset.classes, accuracy),
    )
