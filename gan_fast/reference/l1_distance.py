"""sum_k mean |a_k - b_k| over a list of pairs of tensors, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype


def check(a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    """Raise what the fused op raises for tensors that do not fit."""
    if len(a) != len(b) or not a:
        raise ValueError(
            f"an L1 distance got {len(a)} and {len(b)} tensors; expected as many of each, and at least one"
        )
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        if x.shape != y.shape:
            raise ValueError(
                f"tensors {k} of an L1 distance have shapes {list(x.shape)} and {list(y.shape)}; they must be equal"
            )
        if not x.dtype == y.dtype == a[0].dtype:
            raise ValueError(
                f"tensors {k} of an L1 distance are {x.dtype} and {y.dtype}, the first is {a[0].dtype}; "
                "convert them to one dtype"
            )


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
