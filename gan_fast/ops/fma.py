"""a b + c in one pass over memory."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast._modes import use_reference
from gan_fast.reference import fma as reference


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c, with broadcasting and torch's type promotion.

    Args:
        a: any shape; float64, float32, bfloat16 or float16.
        b: broadcastable with a.
        c: broadcastable with a b.

    Each gradient has the shape and dtype of its input; any order. The pass is torch's own `addcmul`, which is fused on
    every device and has no intermediate to save.
    """
    if use_reference():
        return reference.fma(a, b, c)
    return torch.addcmul(c, a, b)
