"""The built-in data: scikit-learn's `load_digits`, 1,797 real handwritten digits of 8x8 pixels and 17 grey levels.

A pixel v in 0..16 becomes round(255 v / 16). The split is fixed: a fifth of every class is held out (1,438 train,
359 test), stratified by label with seed 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast.data.errors import missing_extra
from gan_fast.data.splits import stratified

CLASSES = tuple("0123456789")
NATIVE_RESOLUTION = 8


def load_digits(split: str) -> tuple[Tensor, Tensor]:
    """Images uint8 `[N, 1, 8, 8]` and labels int64 `[N]` of "train", "test" or "all"."""
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise missing_extra("scikit-learn", "the digits data set") from error
    bunch = sklearn_digits()
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    if split == "all":
        return images, labels
    train, test = stratified(labels, 0.2)
    chosen = train if split == "train" else test
    return images[chosen], labels[chosen]
