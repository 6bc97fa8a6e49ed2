"""Binary cross entropy of logits and of probabilities, in plain PyTorch: torch's own functions, and their gradient.

    logits         l = (1 - t) x + (1 + (q - 1) t) softplus(-x),   dl/dx = (1 - t) s(x) - q t s(-x)
    probabilities  l = -t max(log x, -100) - (1 - t) max(log(1 - x), -100),   dl/dx = (x - t) / max(x (1 - x), 1e-12)

each times the weight, then averaged, summed or left as it is (reduction 1, 2, 0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.reference.adversarial_loss import MEAN, NONE, accumulate_dtype

_NAMES = {0: "none", 1: "mean", 2: "sum"}


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, logits: bool, reduction: int
) -> Tensor:
    """The loss, in the dtype of the input; differentiable to any order."""
    if logits:
        return F.binary_cross_entropy_with_logits(
            input, target, weight, reduction=_NAMES[reduction], pos_weight=pos_weight
        )
    return F.binary_cross_entropy(input, target, weight, reduction=_NAMES[reduction])


def binary_cross_entropy_op(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    logits: bool,
    reduction: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """The loss and, if asked for and reduced, its gradient for the input; otherwise an empty tensor."""
    args = (input, target, weight, pos_weight, logits, reduction)
    loss = binary_cross_entropy(*args)
    if not with_gradient or reduction == NONE:
        return loss, input.new_empty(0)
    return loss, binary_cross_entropy_backward(torch.ones_like(loss), *args)


def binary_cross_entropy_backward(
    grad: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    logits: bool,
    reduction: int,
) -> Tensor:
    """The gradient for the input; `grad` is 0-dim, or of the input's shape for reduction none."""
    dtype = accumulate_dtype(input)
    x, t = input.to(dtype), target.to(dtype)
    if logits:
        positive = t if pos_weight is None else t * pos_weight.to(dtype)
        derivative = (1 - t) * torch.sigmoid(x) - positive * torch.sigmoid(-x)
    else:
        derivative = (x - t) / ((1 - x) * x).clamp_min(1e-12)
    if weight is not None:
        derivative = derivative * weight.to(dtype)
    scale = grad.to(dtype) / (x.numel() if reduction == MEAN else 1)
    return (scale * derivative).to(input.dtype)
