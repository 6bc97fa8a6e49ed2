"""How far samples y and real images x lie among each other, by balls that reach to the k-th nearest neighbour.

    B(x_i)      all points no further from x_i than its k-th nearest other real image
    precision   share of y in some B(x_i)                   recall     share of x in some ball around a sample, alike
    density     mean over y of |{i : y in B(x_i)}| / k      coverage   share of x whose B(x_i) holds some y

Precision and recall with k = 3: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative
Models", 2019, section 2. Density and coverage with k = 5: Naeem et al., "Reliable Fidelity and Diversity Metrics for
Generative Models", 2020, section 3. An outlier among the real images has a large ball, which precision counts in full
and density as one of many; recall measures with balls around samples, which grow as these spread, coverage does not.

Real images of equal counts have precision and recall alike, density 1 and coverage 1 - 2^-k = 0.97.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

PRECISION_RECALL_NEIGHBOURS = 3
DENSITY_COVERAGE_NEIGHBOURS = 5
_ROWS = 1000


class PrecisionRecall(NamedTuple):
    """Shares of samples and of real images."""

    precision: float
    recall: float

    @property
    def f_score(self) -> float:
        """Their harmonic mean; 0 where both are."""
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-12)


class DensityCoverage(NamedTuple):
    """density: not bounded by 1. coverage: a share of the real images."""

    density: float
    coverage: float


def precision_recall(samples: Tensor, real: Tensor, k: int = PRECISION_RECALL_NEIGHBOURS) -> PrecisionRecall:
    """Of features `[N, D]` and `[M, D]`."""
    inside_real = containing(samples, real, radii(real, k)) > 0
    inside_samples = containing(real, samples, radii(samples, k)) > 0
    return PrecisionRecall(float(inside_real.double().mean()), float(inside_samples.double().mean()))


def density_coverage(samples: Tensor, real: Tensor, k: int = DENSITY_COVERAGE_NEIGHBOURS) -> DensityCoverage:
    """Of features `[N, D]` and `[M, D]`."""
    reach = radii(real, k)
    density = containing(samples, real, reach).double().mean() / k
    nearest = torch.cat([d.amin(1) for d in _distances(real, samples)])
    return DensityCoverage(float(density), float((nearest <= reach).double().mean()))


def radii(points: Tensor, k: int) -> Tensor:
    """The distance of each of `[N, D]` to its k-th nearest other, fp64 `[N]`."""
    if len(points) <= k:
        raise ValueError(f"balls to the {k}-th nearest neighbour need more than {k} points; got {len(points)}")
    # The nearest of all is the point itself.
    return torch.cat([d.kthvalue(k + 1, dim=1).values for d in _distances(points, points)])


def containing(points: Tensor, centres: Tensor, reach: Tensor) -> Tensor:
    """In how many of the balls around `centres` `[M, D]` each of `points` `[N, D]` lies, int64 `[N]`."""
    return torch.cat([(d <= reach).sum(1) for d in _distances(points, centres)])


def _distances(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """fp64 `[n, M]`, a few rows at a time."""
    columns = columns.double()
    for part in rows.split(_ROWS):
        yield torch.cdist(part.double(), columns)
