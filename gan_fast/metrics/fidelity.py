"""FID, KID, IS, precision, recall, density and coverage of a set of samples, beside held-out images' own.

    name                 features of              proxy_... alike, features of
    fid, kid, is         Inception                -
    precision_recall     Inception                the network of the proxy Frechet distance (`features.py`)
    density_coverage     Inception                the same

Real statistics are kept on disk under the fingerprint of the data and the key of the network: the moments of at most
50,000 training images, which FID compares with, and the features of at most 10,000, for all the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from gan_fast.data import ImageDataset
from gan_fast.metrics import cache
from gan_fast.metrics.features import VERSION, Extractor, as_seen, extractor_for
from gan_fast.metrics.frechet import Moments, frechet_distance, moments
from gan_fast.metrics.inception_score import inception_score
from gan_fast.metrics.kid import kid
from gan_fast.metrics.manifolds import density_coverage, precision_recall

Metric = Literal[
    "proxy",
    "proxy_precision_recall",
    "proxy_density_coverage",
    "fid",
    "kid",
    "is",
    "precision_recall",
    "density_coverage",
]
METRICS: tuple[Metric, ...] = get_args(Metric)
PROXY, WITH_PROXY, WITH_INCEPTION = METRICS[0], METRICS[1:3], METRICS[3:]
MOST_MOMENTS = 50_000
MOST_FEATURES = 10_000
# What an inception score's splits and the fifth neighbour need.
FEWEST = 10
# Part of every cache key: raise it when anything here changes a figure.
_KEPT = 1


class Network(Protocol):
    """What turns images into features."""

    name: str
    key: str

    def features(self, images: Tensor, progress: Callable[[str], None] | None = None) -> tuple[Tensor, Tensor]:
        """Features `[N, D]` and logits `[N, classes]` of uint8 images."""


class ProxyNetwork:
    """The proxy's network in this form. It has seen the training images: of these its features tell more than of any
    others."""

    def __init__(self, dataset: ImageDataset, progress: Callable[[str], None] | None = None) -> None:
        self.extractor: Extractor = extractor_for(dataset, progress=progress)
        self.name = f"the proxy's {self.extractor.kind}"
        self.key = f"{self.extractor.kind}-v{VERSION}-{dataset.fingerprint[:16]}"

    def features(self, images: Tensor, progress: Callable[[str], None] | None = None) -> tuple[Tensor, Tensor]:
        parts = [self.extractor.features(as_seen(part.float() / 127.5 - 1)) for part in images.split(1024)]
        return torch.cat(parts), torch.zeros(len(images), 0)


class Real(NamedTuple):
    """Moments of `moments.n` real images, and features of some of them."""

    moments: Moments
    features: Tensor


@dataclasses.dataclass(frozen=True)
class FidelityReport:
    """What `evaluate_fidelity` found.

    Attributes:
        data, network: the data set, and whose features.
        samples: how many were judged.
        real: training images behind the FID's moments; features: those behind the others.
        figures: by name, as `proxy_` figures where the network is the proxy's.
        held_out: how many held-out images the same figures were computed of; 0 where none are held out.
        floor: these figures.
    """

    data: str
    network: str
    samples: int
    real: int
    features: int
    figures: dict[str, float]
    held_out: int
    floor: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        beside = f"{self.held_out:,} held-out images beside them" if self.held_out else "no images are held out"
        against = f"{self.samples:,} samples against {self.real:,} images of {self.data}"
        lines = [f"{against}; features of {self.network}; {beside}"]
        for name, value in self.figures.items():
            if name.endswith("_sd"):
                continue
            words, digits = _SHOWN[name.removeprefix("proxy_")]
            sd = self.figures.get(f"{name}_sd")
            shown = f"{value:9.{digits}f}" + (f" +- {sd:.{digits}f}" if sd is not None else "")
            own = f"   real {self.floor[name]:.{digits}f}" if name in self.floor else ""
            lines.append(f"  {'proxy ' if name.startswith('proxy_') else ''}{words:<22} {shown}{own}")
        return lines


# What people call a figure, and how many decimals it has.
_SHOWN = {
    "fid": ("FID", 2),
    "kid": ("KID", 5),
    "is": ("inception score", 2),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "density": ("density", 3),
    "coverage": ("coverage", 3),
}


def check_metrics(metrics: Sequence[str]) -> None:
    """ValueError for a name that is not one, for none and for one twice."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics or len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics must be one or more of {', '.join(METRICS)}, each once; got {' '.join(metrics)!r}")


def evaluate_fidelity(
    samples: Tensor,
    dataset: ImageDataset,
    metrics: Sequence[str],
    network: Network,
    *,
    progress: Callable[[str], None] | None = None,
) -> FidelityReport:
    """Judge samples by the features of `network`.

    Args:
        samples: `[N, C, H, H]` in [-1, 1] of the data set's shape, or uint8; rounded to bytes, as pictures are saved.
        dataset: the training split.
        metrics: names of `WITH_INCEPTION`, all judged by `network`; with a `ProxyNetwork` names of `WITH_PROXY`.
        network: an `Inception` or a `ProxyNetwork`.
        progress: called with one line now and then.

    Raises:
        ValueError: samples of another shape or not finite, or fewer than a figure needs.
    """
    proxy = isinstance(network, ProxyNetwork)
    wrong = [name for name in metrics if name not in (WITH_PROXY if proxy else WITH_INCEPTION)]
    if wrong:
        raise ValueError(f"{network.name} does not give {', '.join(wrong)}")
    images = to_bytes(samples, dataset)
    real = _real(dataset, network, progress)
    held_out = dataset.held_out
    floor: dict[str, float] = {}
    count = 0
    if held_out is not None and min(len(held_out), len(images)) >= FEWEST:
        count = min(len(held_out), len(images), MOST_FEATURES)
        floor = _floor(held_out, dataset, count, metrics, network, real, progress)
    features, logits = network.features(images, progress)
    return FidelityReport(
        data=dataset.name,
        network=network.name,
        samples=len(images),
        real=real.moments.n,
        features=len(real.features),
        figures=figures(features, logits, real, metrics),
        held_out=count,
        floor=floor,
    )


def figures(features: Tensor, logits: Tensor, real: Real, metrics: Sequence[str]) -> dict[str, float]:
    """The figures that `metrics` name, of features and logits of samples."""
    found: dict[str, float] = {}
    for metric in metrics:
        prefix = "proxy_" if metric.startswith("proxy_") else ""
        name = metric.removeprefix(prefix)
        if name == "fid":
            own = moments(features)
            found["fid"] = frechet_distance(own.mean, own.covariance, real.moments.mean, real.moments.covariance)
        elif name == "kid":
            found["kid"], found["kid_sd"], _ = kid(features, real.features)
        elif name == "is":
            found["is"], found["is_sd"] = inception_score(logits)
        elif name == "precision_recall":
            found[f"{prefix}precision"], found[f"{prefix}recall"] = precision_recall(features, real.features)
        else:
            found[f"{prefix}density"], found[f"{prefix}coverage"] = density_coverage(features, real.features)
    return found


def to_bytes(samples: Tensor, dataset: ImageDataset) -> Tensor:
    """uint8 `[N, C, H, H]`; ValueError for another shape than the data's, or what is not finite."""
    if samples.ndim != 4 or tuple(samples.shape[1:]) != dataset.shape or len(samples) < 2:
        expected = ", ".join(map(str, dataset.shape))
        raise ValueError(f"samples must be [N, {expected}] with N >= 2; got {list(samples.shape)}")
    if samples.dtype == torch.uint8:
        return samples
    samples = samples.detach().to("cpu", torch.float32)
    if not samples.isfinite().all():
        raise ValueError("samples must be finite; some are infinite or NaN")
    return ((samples + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


def _chosen(count: int, most: int) -> Tensor:
    """Which of `count`: all, or a fixed random choice of `most`."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most]


def _real(dataset: ImageDataset, network: Network, progress: Callable[[str], None] | None) -> Real:
    key = f"fidelity-v{_KEPT}-{network.key}-{MOST_MOMENTS}-{MOST_FEATURES}-{dataset.fingerprint[:32]}"
    saved = cache.read(key)
    if saved is not None:
        t = saved[0]
        return Real(Moments(t["mean"], t["covariance"], int(t["n"])), t["features"])
    if progress is not None:
        progress(f"{network.name} looks at the real images of {dataset.name}, once")
    features, _ = network.features(dataset.images[_chosen(len(dataset), MOST_MOMENTS)], progress)
    own = moments(features)
    kept = features[_chosen(len(features), MOST_FEATURES)]
    tensors = {"mean": own.mean, "covariance": own.covariance, "n": torch.tensor(own.n), "features": kept}
    cache.write(key, tensors, {"data": dataset.name})
    return Real(own, kept)


def _floor(
    held_out: ImageDataset,
    dataset: ImageDataset,
    count: int,
    metrics: Sequence[str],
    network: Network,
    real: Real,
    progress: Callable[[str], None] | None,
) -> dict[str, float]:
    """The figures of `count` held-out images, from the cache or computed."""
    data = f"{dataset.fingerprint[:32]}-{held_out.fingerprint[:16]}"
    key = f"floor-v{_KEPT}-{network.key}-n{count}-{'.'.join(metrics)}-{data}"
    saved = cache.read(key)
    if saved is not None:
        return {name: float(value) for name, value in saved[0].items()}
    features, logits = network.features(held_out.images[_chosen(len(held_out), count)], progress)
    found = figures(features, logits, real, metrics)
    cache.write(key, {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}, {})
    return found
