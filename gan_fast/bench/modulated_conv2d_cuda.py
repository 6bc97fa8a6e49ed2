"""Modulated convolution on a card, at 128x128 and above: no case on a machine without one.

The contenders are those of `bench.modulated_conv2d`, cuDNN's two formulations among them. Which implementation serves
gan_fast's products is measured in the warm-up (`gan_fast.triton.rule`); GAN_FAST_MODULATED_CONV=triton or =shared
times one of them. float32 is tf32 where torch allows it, so it is held to 10 bits of mantissa.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from gan_fast.bench import modulated_conv2d
from gan_fast.bench.cases import Case

SHAPES = ((8, 256, 128, 128), (8, 128, 256, 256))
EAGER_TARGET = 1.3  # over the faster of the two formulations


def cases() -> list[Case]:
    """float32 and bfloat16 of both shapes."""
    if not torch.cuda.is_available():
        return []
    found = [case for shape in SHAPES for case in modulated_conv2d.cases(shape)]
    return [replace(case, targets={"eager": EAGER_TARGET}, rtol=max(case.rtol, 5e-3), quick=False) for case in found]
