"""The figures themselves, as functions of tensors. Every Frechet distance here is a proxy: its features come from a
small network trained on the data at hand, not from Inception, so it compares only with figures of the same network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.metrics.features import Extractor
from gan_fast.metrics.frechet import Moments, frechet_distance, moments


def proxy_frechet(samples: Tensor, real: Tensor | Moments, extractor: Extractor) -> float:
    """Proxy Frechet distance of samples `[N, C, h, h]` to real images alike, or to the moments of their features."""
    reference = real if isinstance(real, Moments) else moments(extractor.features(real))
    own = moments(extractor.features(samples))
    return frechet_distance(own.mean, own.covariance, reference.mean, reference.covariance)


def proxy_frechet_at(features: Tensor, reference: Moments, count: int, draws: int = 5) -> float:
    """The mean distance of `draws` random subsets of `count` features.

    A covariance from few samples is itself uncertain and pushes the distance up, by about 1/count: only distances of
    equal counts compare.
    """
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(draws):
        part = moments(features[torch.randperm(len(features), generator=generator)[:count]])
        total += frechet_distance(part.mean, part.covariance, reference.mean, reference.covariance)
    return total / draws


def gaussian_baseline(real: Tensor, count: int, seed: int = 0) -> Tensor:
    """`count` samples, `[count, C, h, h]`, of the Gaussian with the mean and full covariance of the real pixels.

    x = m + (X - m)^T e / sqrt(n - 1) with e ~ N(0, I_n) has exactly the sample covariance, whatever its rank, and
    needs no decomposition. Clipped to [-1, 1].
    """
    x = real.flatten(1)
    mean = x.mean(0)
    noise = torch.randn(count, len(x), generator=torch.Generator().manual_seed(seed))
    samples = torch.addmm(mean, noise, x - mean, alpha=(len(x) - 1) ** -0.5)
    return samples.clamp_(-1, 1).view(count, *real.shape[1:])


def untrained_baseline(shape: tuple[int, int, int], count: int, seed: int = 0) -> Tensor:
    """`count` images `[count, *shape]` of a generator that has learned nothing: 64 normal latents, two upsampling
    convolutions with DCGAN's N(0, 0.02) weights and batch statistics, tanh."""
    channels, size, _ = shape
    generator = torch.Generator().manual_seed(seed)

    def weights(*dims: int) -> Tensor:
        return 0.02 * torch.randn(*dims, generator=generator)

    w1, w2, w3 = weights(64, 32 * 16), weights(32, 32, 3, 3), weights(channels, 32, 3, 3)
    images = []
    for part in torch.randn(count, 64, generator=generator).split(512):
        x = F.relu(F.instance_norm((part @ w1).view(-1, 32, 4, 4)))
        x = F.relu(F.instance_norm(F.conv2d(F.interpolate(x, size=(size // 2, size // 2)), w2, padding=1)))
        images.append(torch.tanh(F.conv2d(F.interpolate(x, size=(size, size)), w3, padding=1)))
    return torch.cat(images)


def class_coverage(samples: Tensor, extractor: Extractor) -> Tensor:
    """The share of samples `[N, C, h, h]` that the classifier gives to each class, fp64 `[classes]`, sum 1."""
    counts = torch.bincount(extractor.predictions(samples), minlength=len(extractor.classes))
    return counts.double() / len(samples)


class Replay(NamedTuple):
    """How far samples are from the images they were trained on.

    ratio: median distance over held-out images' own. 1 as new as unseen real images, 0 copies.
    median, held_out_median: Euclidean distances of pixels in [-1, 1].
    copies: the share of samples nearer than a quarter of the held-out median, which a median alone would not show.
    """

    ratio: float
    median: float
    held_out_median: float
    copies: float


def nearest_distances(queries: Tensor, train: Tensor, chunk: int = 8192, candidates: int = 4) -> Tensor:
    """Distance of each query `[N, C, h, h]` to its nearest training image, fp64 `[N]`.

    |q - t|^2 = |q|^2 - 2 q.t + |t|^2 finds four candidates per chunk with one matrix product; its rounding would hide
    exact copies, so theirs are computed again as (q - t)^2 in fp64.
    """
    q, nearest = queries.flatten(1), torch.full((len(queries),), torch.inf, dtype=torch.float64)
    for part in train.flatten(1).split(chunk):
        for rows in torch.arange(len(q)).split(512):
            scores = torch.addmm(part.square().sum(1), q[rows], part.T, alpha=-2)
            best = scores.topk(min(candidates, len(part)), largest=False).indices
            exact = (q[rows].unsqueeze(1).double() - part[best].double()).square().sum(2).amin(1)
            nearest[rows] = torch.minimum(nearest[rows], exact)
    return nearest.sqrt_()


def replay(distances: Tensor, held_out_distances: Tensor) -> Replay:
    """From the nearest distances of samples and of held-out images."""
    unseen = float(held_out_distances.median())
    if unseen == 0:
        raise ValueError("half of the held-out images are exact copies of training images: remove duplicates first")
    copies = float((distances < unseen / 4).double().mean())
    return Replay(float(distances.median()) / unseen, float(distances.median()), unseen, copies)


def nearest_neighbour_ratio(samples: Tensor, train: Tensor, held_out: Tensor) -> Replay:
    """Whether samples `[N, C, h, h]` repeat the images `train`, judged beside `held_out` real ones."""
    return replay(nearest_distances(samples, train), nearest_distances(held_out, train))
