"""Drop-ins for four of PyTorch's losses: same signatures, same results, same errors, fused kernels.

Inputs of any shape and strides, float64, float32, bfloat16 or float16; results in the dtype PyTorch returns, computed
and summed in float32 (float64 for float64). Differentiable to any order in reverse mode; under `torch.func` transforms,
forward-mode AD and `gan_fast.reference_mode()` PyTorch's own function runs.

On CUDA, `binary_cross_entropy` of a prediction outside [0, 1] is NaN, where PyTorch's kernel stops the whole process
with a device-side assertion; on the CPU both raise.

Source: the definitions in PyTorch's documentation; the stable forms are in `csrc/*/`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast._modes import has_autocast, use_reference
from gan_fast.reference import binary_cross_entropy as bce_reference

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _reduction(reduction: str, size_average: bool | None, reduce: bool | None) -> int:
    if size_average is not None or reduce is not None:
        reduction = torch.nn._reduction.legacy_get_string(size_average, reduce)
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return _REDUCTIONS[reduction]


def _broadcasts(extra: Tensor | None, input: Tensor) -> bool:
    """Whether a weight broadcasts to the input. What does not is torch's to refuse, or to broadcast the other way."""
    if extra is None:
        return True
    sizes = list(zip(reversed(extra.shape), reversed(input.shape), strict=False))
    return extra.dim() <= input.dim() and all(a == b or a == 1 for a, b in sizes)


def _fused(input: Tensor) -> bool:
    """Whether a kernel serves this input; what is no floating-point tensor is torch's to refuse."""
    return isinstance(input, Tensor) and input.dtype in _FLOATS and not use_reference()


def _autocasts(input: Tensor) -> bool:
    kind = input.device.type
    return has_autocast(kind) and torch.is_autocast_enabled(kind)


def _like(extra: Tensor | None, input: Tensor) -> Tensor | None:
    """A weight with the input's dtype and shape."""
    return None if extra is None else extra.to(input.dtype).expand_as(input)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`torch.nn.functional.binary_cross_entropy_with_logits`, fused.

    Args:
        input: logits.
        target: of the input's shape; any real numbers; differentiable.
        weight: a constant that multiplies the loss, broadcast to the input.
        size_average: deprecated by PyTorch, honoured.
        reduce: deprecated by PyTorch, honoured.
        reduction: "none", "mean" or "sum".
        pos_weight: a constant that multiplies the positive targets' part, broadcast to the input.

    Raises:
        ValueError: the target's shape differs from the input's; an unknown reduction.
    """
    code = _reduction(reduction, size_average, reduce)
    if target.size() != input.size():
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    fits = _broadcasts(weight, input) and _broadcasts(pos_weight, input)
    if not _fused(input) or not target.is_floating_point() or not fits:
        return bce_reference.binary_cross_entropy(input, target, weight, pos_weight, True, code)
    if _autocasts(input) and input.dtype != torch.float64:
        input, target = input.float(), target.float()
    if input.dtype == target.dtype:
        return _bce_with_logits(input, target, weight, pos_weight, code)
    # torch's result has the target's dtype, for it computes in place on 1 - target; here the wider of both computes
    wide = torch.promote_types(input.dtype, target.dtype)
    return _bce_with_logits(input.to(wide), target.to(wide), weight, pos_weight, code).to(target.dtype)


def _bce_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, code: int
) -> Tensor:
    return torch.ops.gan_fast.binary_cross_entropy(
        input, target, _like(weight, input), _like(pos_weight, input), True, code, False
    )[0]


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`torch.nn.functional.binary_cross_entropy`, fused: probabilities in, log clamped at -100 as torch does.

    Args:
        input: probabilities in [0, 1].
        target: of the input's shape and dtype.
        weight: multiplies the loss, broadcast to the input.
        size_average: deprecated by PyTorch, honoured.
        reduce: deprecated by PyTorch, honoured.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: the target's shape differs from the input's; an unknown reduction.
        RuntimeError: a prediction outside [0, 1] (CPU), dtypes that differ.
    """
    code = _reduction(reduction, size_average, reduce)
    if target.size() != input.size():
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}) is "
            "deprecated. Please ensure they have the same size."
        )
    if not _fused(input) or not _broadcasts(weight, input):
        return bce_reference.binary_cross_entropy(input, target, weight, None, False, code)
    if _autocasts(input):
        if input.device.type == "cuda":
            # PyTorch refuses this combination; so does its error, which says what to use instead
            return F.binary_cross_entropy(input, target, weight, reduction=reduction)
        input, target = input.float(), target.float()
    return torch.ops.gan_fast.binary_cross_entropy(input, target, _like(weight, input), None, False, code, False)[0]


def logsigmoid(input: Tensor) -> Tensor:
    """`torch.nn.functional.logsigmoid`, fused: log(1 / (1 + e^-x)) of every element."""
    if not _fused(input):
        return F.logsigmoid(input)
    return torch.ops.gan_fast.softplus(input, -1.0, math.inf)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """`torch.nn.functional.softplus`, fused: log(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""
    if not _fused(input):
        return F.softplus(input, beta, threshold)
    if _autocasts(input) and input.device.type == "cuda":
        input = input.float()
    return torch.ops.gan_fast.softplus(input, beta, threshold)


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
