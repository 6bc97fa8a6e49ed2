"""softplus(x) = log(1 + e^(beta x)) / beta, x itself where beta x > threshold, in plain PyTorch.

With beta = -1 and an infinite threshold it is log sigmoid(x), as `log_sigmoid` below computes it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype


def softplus(input: Tensor, beta: float, threshold: float) -> Tensor:
    """Elementwise, in the dtype of the input; differentiable to any order."""
    if beta == -1 and math.isinf(threshold):
        return log_sigmoid(input)
    return F.softplus(input, beta, threshold)


def log_sigmoid(input: Tensor) -> Tensor:
    """log(1 / (1 + e^-x))."""
    return F.logsigmoid(input)


def softplus_backward(grad: Tensor, input: Tensor, beta: float, threshold: float) -> Tensor:
    """grad * sigmoid(beta x), grad itself where beta x > threshold."""
    u = beta * input.to(accumulate_dtype(input))
    return torch.where(u > threshold, grad, grad * torch.sigmoid(u)).to(input.dtype)
