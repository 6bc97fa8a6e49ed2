"""KID: the kernel distance of two sets of features, unbiased at any count, unlike a Frechet distance.

    MMD^2 = mean over i /= j of k(x_i, x_j) + the same of y - 2 mean of k(x_i, y_j),    k(x, y) = (x . y / D + 1)^3

averaged over random subsets. Source: Binkowski et al., "Demystifying MMD GANs", 2018, sections 3 and 4. Subsets (100 of
1,000) and the stream that draws them are torch-fidelity's, so that the number is too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SUBSETS = 100
SUBSET = 1000
_SEED = 2020


class Kid(NamedTuple):
    """mean and sd over the subsets, each of `subset` samples and as many real ones."""

    mean: float
    sd: float
    subset: int


def kid(samples: Tensor, real: Tensor, *, subsets: int = SUBSETS, subset: int = SUBSET) -> Kid:
    """Of features `[N, D]` and `[M, D]`. Where there are fewer than `subset`, a subset is as many as there are."""
    size = min(subset, len(samples), len(real))
    if size < 2:
        raise ValueError(f"KID needs two samples and two real images; got {len(samples)} and {len(real)}")
    stream = np.random.RandomState(_SEED)
    values = []
    for _ in range(subsets):
        x = samples[torch.from_numpy(stream.choice(len(samples), size, replace=False))]
        y = real[torch.from_numpy(stream.choice(len(real), size, replace=False))]
        between = _kernel(x, y).sum() / size**2
        values.append((_off_diagonal(x) + _off_diagonal(y)) / (size * (size - 1)) - 2 * between)
    of_subsets = torch.stack(values)
    return Kid(float(of_subsets.mean()), float(of_subsets.std(correction=0)), size)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """`[N, M]`; products in the features' precision, their cubes in fp64."""
    return ((x @ y.T).double() / x.shape[1] + 1) ** 3


def _off_diagonal(x: Tensor) -> Tensor:
    k = _kernel(x, x)
    return k.sum() - k.trace()
