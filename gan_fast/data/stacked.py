"""Stacked digits: three digits of 8x8 pixels as red, green and blue of one picture, 1,000 modes that can be counted.

    picture i    channels are digits a, b, c of `load_digits`, drawn uniformly by class, then within the class
    label        100 a + 10 b + c

The test of mode coverage of Metz et al., "Unrolled Generative Adversarial Networks", 2017, section 3.3, and of
Srivastava et al., "VEEGAN", 2017, which stack MNIST. Pictures are drawn from a seed when the data is loaded: 50,000
from the digits to train on, and 10,000 from those held out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast.data.digits import load_digits

NAME = "stacked-digits"
MODES = 1000
CLASSES = tuple(f"{label:03d}" for label in range(MODES))
_COUNT = {"train": 50_000, "test": 10_000}
_SEED = {"train": 0, "test": 1}


def draw(count: int, seed: int, split: str) -> tuple[Tensor, Tensor]:
    """Pictures uint8 `[count, 3, 8, 8]` and labels int64 `[count]` from the digits of `split`."""
    images, labels = load_digits(split)
    stream = torch.Generator().manual_seed(seed)
    digits = torch.randint(10, (count, 3), generator=stream)
    members = [(labels == d).nonzero().flatten() for d in range(10)]
    which = torch.rand(count, 3, generator=stream, dtype=torch.float64)
    chosen = torch.empty(count, 3, dtype=torch.int64)
    for d, indices in enumerate(members):
        here = digits == d
        chosen[here] = indices[(which[here] * len(indices)).long()]
    return images[chosen].squeeze(2), digits @ torch.tensor([100, 10, 1])


def load_stacked(split: str) -> tuple[Tensor, Tensor]:
    """`draw` for "train", "test" or "all"."""
    parts = [draw(_COUNT[s], _SEED[s], s) for s in (("train", "test") if split == "all" else (split,))]
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])
