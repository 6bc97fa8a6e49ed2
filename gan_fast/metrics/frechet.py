"""The Frechet distance of two Gaussians,

    d = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1^1/2 C2 C1^1/2)^1/2,

and tr (C1^1/2 C2 C1^1/2)^1/2 is the sum of the singular values of C1^1/2 C2^1/2: no square root of a matrix that is
not symmetric, so nothing complex and nothing to regularise when a covariance is singular.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """mean fp64 `[D]`, covariance fp64 `[D, D]` (divided by n - 1), and n."""

    mean: Tensor
    covariance: Tensor
    n: int


def moments(features: Tensor) -> Moments:
    """Mean and covariance of `[N, D]`; N >= 2."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be [N, D] with N >= 2; got {list(features.shape)}")
    x = features.double()
    mean = x.mean(0)
    centred = x - mean
    return Moments(mean, centred.T @ centred / (len(x) - 1), len(x))


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """Between N(mean1, covariance1) and N(mean2, covariance2), in float64. Covariances are `[D, D]`, symmetric, PSD.

    Raises:
        ValueError: shapes that do not agree, or NaN or infinity.
    """
    d = mean1.numel()
    for name, value, shape in (
        ("mean1", mean1, (d,)),
        ("covariance1", covariance1, (d, d)),
        ("mean2", mean2, (d,)),
        ("covariance2", covariance2, (d, d)),
    ):
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} must be {list(shape)}; got {list(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} has NaN or infinite entries: check the samples the statistics came from")
    c1, c2 = covariance1.double(), covariance2.double()
    cross = torch.linalg.svdvals(_square_root(c1) @ _square_root(c2)).sum()
    distance = (mean1.double() - mean2.double()).square().sum() + c1.trace() + c2.trace() - 2 * cross
    # Rounding can leave a distance of zero at -1e-12.
    return max(float(distance), 0.0)


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
