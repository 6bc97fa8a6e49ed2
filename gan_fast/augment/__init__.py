"""Augmentations a critic sees its images through, so that a few thousand pictures are enough:

    D(T(x)) and D(T(G(z)))      T random for each image, differentiable, on the images' device

`DiffAugment` and `ADA` are modules, images `[N, C, H, W]` in and out; `AdaptiveProbability` moves ADA's p.
"""

from __future__ import annotations

from gan_fast.augment.ada import ADA
from gan_fast.augment.adaptive import AdaptiveProbability
from gan_fast.augment.diffaugment import DiffAugment

__all__ = ["ADA", "AdaptiveProbability", "DiffAugment"]
