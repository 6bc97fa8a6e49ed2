"""The inception score of samples, exp E_x KL(p(y | x) || p(y)), with p(y) the mean of p(y | x).

High where every sample is of a clear class and the samples are of many; it looks at no real image, and a generator that
copies one picture of each class has the best. Source: Salimans et al., "Improved Techniques for Training GANs", 2016,
section 4. Mean and standard deviation over ten splits of the shuffled samples; the shuffle is torch-fidelity's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SPLITS = 10
_SEED = 2020


def inception_score(logits: Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """Mean and sd, from logits `[N, classes]` of the samples; N is at least the number of splits."""
    count = len(logits)
    if count < splits:
        raise ValueError(f"an inception score of {splits} splits needs as many samples; got {count}")
    order = torch.from_numpy(np.random.RandomState(_SEED).permutation(count))
    log_p = logits[order].double().log_softmax(1)
    scores = []
    for i in range(splits):
        part = log_p[i * count // splits : (i + 1) * count // splits]
        marginal = part.exp().mean(0).log()
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp())
    of_splits = torch.stack(scores)
    return float(of_splits.mean()), float(of_splits.std(correction=0))
