r"""Penalties on the norms of per-sample gradients g_i, in plain PyTorch; n_i = |g_i|^2 over all but the first axis.

    SQUARE      w/2 mean_i n_i                       Mescheder, Geiger and Nowozin 2018 (R1, R2)
    TWO_SIDED   w mean_i (sqrt(n_i) - c)^2           Gulrajani et al. 2017 (WGAN-GP), Kodali et al. 2017 (DRAGAN)
    ONE_SIDED   w mean_i max(0, sqrt(n_i) - c)^2     Petzka, Fischer and Lukovnikov 2018 (WGAN-LP)

The gradient for g_i is a(n_i) g_i. A norm has no derivative at n_i = 0; zero is the one taken, of every order.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype


class Kind(enum.IntEnum):
    """Which function of the norms; the values are those of `csrc/gradient_penalty/gradient_penalty.h`."""

    SQUARE = 0
    TWO_SIDED = 1
    ONE_SIDED = 2


def squared_norms(g: Tensor) -> Tensor:
    """`[N]` from `[N, ...]`, in float32 (float64 for float64)."""
    squares = g.to(accumulate_dtype(g)).square()
    return squares.flatten(1).sum(1) if squares.dim() > 1 else squares


def norms(n: Tensor) -> Tensor:
    """sqrt(n), with derivatives of zero at n = 0."""
    zero = n == 0
    return n.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


def gradient_penalty(g: Tensor, kind: int, center: float, weight: float) -> tuple[Tensor, Tensor]:
    """The penalty, 0-dim, and the squared norms `[N]`, both in the accumulation dtype. Differentiable to any order."""
    n = squared_norms(g)
    # a centre of zero leaves the norm's square, which is smooth at zero where the norm is not
    if kind == Kind.SQUARE:
        return weight / 2 * n.mean(), n
    if center == 0:
        return weight * n.mean(), n
    excess = norms(n) - center
    return weight * (excess.relu() if kind == Kind.ONE_SIDED else excess).square().mean(), n


def coefficients(n: Tensor, kind: int, center: float, weight: float) -> Tensor:
    """a(n): w/N, or 2 w/N (1 - c / sqrt(n)), zero where a one-sided penalty is inactive and at n = 0 unless c is 0."""
    factor = weight / max(n.numel(), 1)
    if kind == Kind.SQUARE:
        return torch.full_like(n, factor)
    zero = n == 0
    root = n.masked_fill(zero, 1).sqrt()
    ratio = (center / root).masked_fill(zero, 1.0 if center > 0 else 0.0)
    a = 2 * factor * (1 - ratio)
    return a.masked_fill(n.sqrt() <= center, 0) if kind == Kind.ONE_SIDED else a


def gradient_penalty_backward(
    grad: Tensor, g: Tensor, squared_norms: Tensor, kind: int, center: float, weight: float
) -> Tensor:
    """grad * a(n_i) g_i in the dtype of `g`."""
    a = grad.to(squared_norms.dtype) * coefficients(squared_norms, kind, center, weight)
    return (a.reshape(-1, *[1] * (g.dim() - 1)) * g.to(a.dtype)).to(g.dtype)
