"""`evaluate_samples`: all figures of a set of samples, beside what the same figures are for real and for bad images.

Everything is measured against the training images: their features' mean and covariance are the reference of each
distance. The sample count biases a Frechet distance upwards, so

- samples, Gaussian and untrained images are compared at the same count n;
- the real floor can only use the held-out images there are; beside it, samples and Gaussian at that very count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_fast.data import ImageDataset
from gan_fast.metrics import cache
from gan_fast.metrics.agreement import Agreement, class_agreement
from gan_fast.metrics.features import VERSION, Extractor, as_seen, extractor_for, seen_pixels
from gan_fast.metrics.figures import (
    Replay,
    class_coverage,
    gaussian_baseline,
    nearest_distances,
    proxy_frechet_at,
    replay,
    untrained_baseline,
)
from gan_fast.metrics.frechet import Moments, frechet_distance, moments

DEFAULT_SAMPLES = 2000
# The reference and the Gaussian use at most this many training images, a fixed random choice.
MOST_REFERENCE = 10_000


@dataclass(frozen=True)
class QualityReport:
    """What `evaluate_samples` found. Distances are proxy Frechet distances: smaller is better, 0 is the same.

    Attributes:
        data, resolution, seen_at: the data set, its size and the size at which images were judged.
        samples: how many were judged.
        features: "classifier" or "autoencoder", the network whose features the distances use.
        test_accuracy: of the classifier on held-out real images; None for an autoencoder.
        explained_variance: of the autoencoder on held-out real images; None for a classifier.
        proxy_frechet: samples to training images.
        gaussian_proxy_frechet: as many samples of a full-covariance Gaussian fitted to the training pixels.
        untrained_proxy_frechet: as many images of an untrained generator.
        real_against_real: held-out real images to training images, `held_out` of them; None where none are held out.
        proxy_frechet_at_held_out, gaussian_at_held_out: samples and Gaussian at that same count.
        coverage: share of the samples in each class; empty without a classifier.
        replay: nearest-neighbour distances beside held-out images' own; None where none are held out, or where
            most of those are copies of training images.
        agreement: of class-conditional samples with the classes asked for; None without such, or without a classifier.
        conditional: whether classes were asked for.
    """

    data: str
    resolution: int
    seen_at: int
    samples: int
    features: str
    test_accuracy: float | None
    explained_variance: float | None
    proxy_frechet: float
    gaussian_proxy_frechet: float
    untrained_proxy_frechet: float
    held_out: int
    real_against_real: float | None
    proxy_frechet_at_held_out: float | None
    gaussian_at_held_out: float | None
    coverage: dict[str, float]
    replay: Replay | None
    agreement: Agreement | None = None
    conditional: bool = False

    @property
    def gaussian_share(self) -> float:
        """The samples' distance over the Gaussian's."""
        return self.proxy_frechet / max(self.gaussian_proxy_frechet, 1e-12)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        plain = asdict(self)
        plain["replay"] = None if self.replay is None else self.replay._asdict()
        plain["agreement"] = None if self.agreement is None else self.agreement._asdict()
        plain["gaussian_share"] = self.gaussian_share
        return plain

    def lines(self) -> list[str]:
        """For people."""
        if self.test_accuracy is not None:
            judge = f"a classifier of the real images ({100 * self.test_accuracy:.1f} % test accuracy)"
        else:
            judge = (
                f"an autoencoder of the real images (restores {100 * (self.explained_variance or 0):.0f} % of variance)"
            )
        at = "" if self.seen_at == self.resolution else f", seen at {self.seen_at} px"
        lines = [
            f"{self.samples} samples against {self.data}{at}; features of {judge}",
            f"proxy Frechet distance     {self.proxy_frechet:8.2f}   (a proxy: compare only with the lines below)",
            f"  Gaussian of the pixels   {self.gaussian_proxy_frechet:8.2f}   "
            f"samples are at {self.gaussian_share:.2f} of it",
            f"  untrained generator      {self.untrained_proxy_frechet:8.2f}",
        ]
        if self.real_against_real is None:
            lines.append("  no images are held out: no real-against-real floor, no replay check")
        else:
            lines.append(
                f"  real against real        {self.real_against_real:8.2f}   {self.held_out} held-out images; "
                f"at that count samples {self.proxy_frechet_at_held_out:.2f}, Gaussian {self.gaussian_at_held_out:.2f}"
            )
        if self.replay is None and self.held_out:
            lines.append("half of the held-out images are copies of training images: no replay check")
        elif self.replay is not None:
            lines.append(
                f"replay ratio               {self.replay.ratio:8.2f}   median distance to the nearest training image "
                f"{self.replay.median:.2f}, held-out images' own {self.replay.held_out_median:.2f}; "
                f"near copies {100 * self.replay.copies:.1f} %"
            )
        if self.coverage:
            rarest = min(self.coverage, key=lambda name: self.coverage[name])
            lines.append(f"classes found, rarest is {rarest} with {100 * self.coverage[rarest]:.1f} %")
            shares = [f"{name} {100 * share:.1f}" for name, share in self.coverage.items()]
            lines += ["  " + "  ".join(shares[i : i + 10]) for i in range(0, min(len(shares), 100), 10)]
            if len(shares) > 100:
                lines.append(f"  and {len(shares) - 100} more classes")
        if self.agreement is not None:
            lines += self.agreement.lines()
        elif self.conditional:
            lines.append("class agreement: too few images a class, or none held out, for a classifier that could tell")
        return lines


class RealFigures(NamedTuple):
    """All that depends on the real images and the sample count only."""

    reference: Moments
    held_out_distances: Tensor
    gaussian: float
    untrained: float
    real: float
    gaussian_at_held_out: float


def evaluate_samples(
    samples: Tensor,
    dataset: ImageDataset,
    *,
    requested: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> QualityReport:
    """Judge samples against the training set they are meant to look like.

    The first call on a data set trains its feature network (seconds for digits, a minute or so for Fashion-MNIST) and
    keeps it on disk; later calls take seconds.

    Args:
        samples: `[N, C, H, H]` in [-1, 1], N >= 2 (2,000 is usual); the data set's channels and resolution.
        dataset: the training split, from `gan_fast.data.load`.
        requested: of class-conditional samples the class each was asked to be, int64 `[N]`: adds `agreement`.
        seed: of the feature network and the baselines.
        progress: called with one line now and then.

    Raises:
        ValueError: samples of another shape, not finite, or outside [-1, 1].
    """
    samples = _checked(samples, dataset)
    extractor = extractor_for(dataset, seed=seed, progress=progress)
    real = _real_figures(dataset, extractor, len(samples), seed, progress)
    seen = as_seen(samples)
    features = extractor.features(seen)
    own = moments(features)
    held_out = len(real.held_out_distances)
    own_replay = None
    # Beside held-out images that are themselves copies, no distance means anything.
    if held_out and float(real.held_out_distances.median()) > 0:
        if progress is not None:
            progress("looking for each sample's nearest training image")
        own_replay = replay(nearest_distances(seen, seen_pixels(dataset)), real.held_out_distances)
    classifies = extractor.kind == "classifier"
    shares = class_coverage(seen, extractor) if classifies else torch.zeros(0)
    return QualityReport(
        data=dataset.name,
        resolution=dataset.resolution,
        seen_at=seen.shape[-1],
        samples=len(samples),
        features=extractor.kind,
        test_accuracy=extractor.accuracy,
        explained_variance=extractor.explained,
        proxy_frechet=frechet_distance(own.mean, own.covariance, real.reference.mean, real.reference.covariance),
        gaussian_proxy_frechet=real.gaussian,
        untrained_proxy_frechet=real.untrained,
        held_out=held_out,
        real_against_real=real.real if held_out else None,
        proxy_frechet_at_held_out=proxy_frechet_at(features, real.reference, held_out) if held_out else None,
        gaussian_at_held_out=real.gaussian_at_held_out if held_out else None,
        coverage=dict(zip(extractor.classes, shares.tolist(), strict=True)),
        replay=own_replay,
        agreement=class_agreement(seen, requested, extractor) if classifies and requested is not None else None,
        conditional=requested is not None,
    )


def _checked(samples: Tensor, dataset: ImageDataset) -> Tensor:
    expected = tuple(dataset.images.shape[1:])
    if samples.ndim != 4 or tuple(samples.shape[1:]) != expected or len(samples) < 2:
        raise ValueError(f"samples must be [N, {', '.join(map(str, expected))}] with N >= 2; got {list(samples.shape)}")
    samples = samples.detach().to("cpu", torch.float32)
    low, high = samples.aminmax()
    if not (low >= -1.001 and high <= 1.001):
        raise ValueError(f"samples must be finite and in [-1, 1]; got values from {float(low)} to {float(high)}")
    return samples


def _real_figures(
    dataset: ImageDataset, extractor: Extractor, count: int, seed: int, progress: Callable[[str], None] | None
) -> RealFigures:
    """From the cache or computed. Keys hold both splits' content, the network and the count."""
    held_out = dataset.held_out
    other = held_out.fingerprint[:16] if held_out is not None else "none"
    key = f"real-{extractor.kind}-v{VERSION}-s{seed}-n{count}-{dataset.fingerprint[:32]}-{other}"
    saved = cache.read(key)
    if saved is not None:
        t = saved[0]
        reference = Moments(t["mean"], t["covariance"], int(t["n"]))
        return RealFigures(reference, t["held_out_distances"], *t["scalars"].tolist())
    if progress is not None:
        progress(f"measuring the real images of {dataset.name}")
    real = _measure_real(dataset, extractor, count, seed)
    scalars = torch.tensor([real.gaussian, real.untrained, real.real, real.gaussian_at_held_out], dtype=torch.float64)
    tensors = {
        "mean": real.reference.mean,
        "covariance": real.reference.covariance,
        "n": torch.tensor(real.reference.n),
        "held_out_distances": real.held_out_distances,
        "scalars": scalars,
    }
    cache.write(key, tensors, {"data": dataset.name})
    return real


def _measure_real(dataset: ImageDataset, extractor: Extractor, count: int, seed: int) -> RealFigures:
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:MOST_REFERENCE]
    pixels = seen_pixels(dataset, chosen)
    reference = moments(extractor.features(pixels))

    def distance(features: Tensor) -> float:
        own = moments(features)
        return frechet_distance(own.mean, own.covariance, reference.mean, reference.covariance)

    gaussian = extractor.features(gaussian_baseline(pixels, count, seed))
    channels, size = pixels.shape[1:3]
    untrained = distance(extractor.features(untrained_baseline((channels, size, size), count, seed)))
    if dataset.held_out is None:
        return RealFigures(reference, torch.zeros(0, dtype=torch.float64), distance(gaussian), untrained, 0.0, 0.0)
    some = torch.randperm(len(dataset.held_out), generator=torch.Generator().manual_seed(seed))[:count]
    unseen = seen_pixels(dataset.held_out, some)
    return RealFigures(
        reference,
        nearest_distances(unseen, seen_pixels(dataset)),
        distance(gaussian),
        untrained,
        distance(extractor.features(unseen)),
        proxy_frechet_at(gaussian, reference, len(unseen)),
    )
