"""a b + c in plain PyTorch."""

from __future__ import annotations

from torch import Tensor


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """With broadcasting and torch's type promotion; differentiable to any order."""
    return a * b + c
