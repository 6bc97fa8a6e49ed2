"""sum_k mean |a_k - b_k| over a list of pairs of tensors, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype


def l1_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """0-dim, float32 (float64 for float64 inputs). Differentiable for `a` and `b`; the derivative at a tie is 0."""
    pairs = zip(a, b, strict=True)
    return torch.stack([(x.to(accumulate_dtype(x)) - y.to(accumulate_dtype(y))).abs().mean() for x, y in pairs]).sum()


def l1_distance_backward(grad: Tensor, a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    """grad / n_k * sign(a_k - b_k), the gradient for a_k; that for b_k is its negative."""
    return [
        (grad / max(x.numel(), 1) * torch.sign(x.to(grad.dtype) - y.to(grad.dtype))).to(x.dtype)
        for x, y in zip(a, b, strict=True)
    ]
