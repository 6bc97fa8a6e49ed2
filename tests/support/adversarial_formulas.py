r"""The seven adversarial losses written down a second time, in float64, with hand-derived gradients.

Nothing here comes from `gan_fast.reference`: the two were written apart so that a slip in one shows. With s the sigmoid
and sp(u) = log(1 + e^u), r and f the logits of real and fake, w and v their sample weights, n and m their counts:

    minimax               D  -log s(r) - log(1 - s(f))                G  log(1 - s(f))
    non_saturating        D  -t log s(r) - (1 - t) log(1 - s(r)) - log(1 - s(f)), t = 1 - label_smoothing
                          G  -log s(f)
    wasserstein           D  f - r                                    G  -f
    hinge                 D  max(0, 1 - r) + max(0, 1 + f)            G  -f
    least_squares         D  (r - b)^2 / 2 + (f - a)^2 / 2            G  (f - c)^2 / 2
    relativistic          D  -log s(r_i - f_i)                        G  -log s(f_i - r_i)
    relativistic_average  D  -log s(r - mean f) - log(1 - s(f - mean r))
                          G  -log s(f - mean r) - log(1 - s(r - mean f))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("minimax", "non_saturating", "wasserstein", "hinge", "least_squares", "relativistic", "relativistic_average")
PAIRED = ("relativistic",)
COUPLED = ("relativistic_average",)
NEEDS_REAL = PAIRED + COUPLED


def sp(u: Tensor) -> Tensor:
    """log(1 + e^u): u for large u, e^u for very negative u, NaN for NaN; autograd through it is right at 0 too."""
    negative = u < 0
    return torch.where(negative, torch.zeros_like(u), u) + torch.log1p(torch.exp(torch.where(negative, u, -u)))


def s(u: Tensor) -> Tensor:
    """1 / (1 + e^-u) without overflow and with full relative precision at both ends."""
    e = torch.exp(-u.abs())
    return torch.where(u >= 0, 1 / (1 + e), torch.where(u < 0, e / (1 + e), u))


@dataclass(frozen=True)
class Loss:
    """One loss with its options; `role` is "discriminator" or "generator"."""

    name: str
    role: str = "discriminator"
    label_smoothing: float = 0.0
    a: float = 0.0
    b: float = 1.0
    c: float = 1.0

    def terms(self, real: Tensor, fake: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Unweighted terms of the real and of the fake side; the paired loss has the first alone."""
        r, f, critic = real, fake, self.role == "discriminator"
        if self.name == "minimax":
            return (sp(-r), sp(f)) if critic else (None, -sp(f))
        if self.name == "non_saturating":
            t = 1 - self.label_smoothing
            smooth = sp(-r) if t == 1 else t * sp(-r) + (1 - t) * sp(r)  # 0 * inf is no limit
            return (smooth, sp(f)) if critic else (None, sp(-f))
        if self.name == "wasserstein":
            return (-r, f) if critic else (None, -f)
        if self.name == "hinge":
            return ((1 - r).clamp(min=0), (1 + f).clamp(min=0)) if critic else (None, -f)
        if self.name == "least_squares":
            return ((r - self.b) ** 2 / 2, (f - self.a) ** 2 / 2) if critic else (None, (f - self.c) ** 2 / 2)
        if self.name == "relativistic":
            return (sp(f - r) if critic else sp(r - f)), None
        if self.name == "relativistic_average":
            to_real, to_fake = r - f.mean(), f - r.mean()
            return (sp(-to_real), sp(to_fake)) if critic else (sp(to_real), sp(-to_fake))
        raise ValueError(self.name)

    def slopes(self, real: Tensor, fake: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """d term / d its own logit; for the coupled loss, d term / d (its difference from the other mean)."""
        r, f, critic = real, fake, self.role == "discriminator"
        one = torch.ones_like
        if self.name == "minimax":
            return (-s(-r), s(f)) if critic else (None, -s(f))
        if self.name == "non_saturating":
            t = 1 - self.label_smoothing
            return (-t * s(-r) + (1 - t) * s(r), s(f)) if critic else (None, -s(-f))
        if self.name == "wasserstein":
            return (-one(r), one(f)) if critic else (None, -one(f))
        if self.name == "hinge":
            return (-(r < 1).to(r.dtype), (f > -1).to(f.dtype)) if critic else (None, -one(f))
        if self.name == "least_squares":
            return (r - self.b, f - self.a) if critic else (None, f - self.c)
        if self.name == "relativistic":
            return (-s(f - r) if critic else s(r - f)), None
        if self.name == "relativistic_average":
            to_real, to_fake = r - f.mean(), f - r.mean()
            return (-s(-to_real), s(to_fake)) if critic else (s(to_real), -s(-to_fake))
        raise ValueError(self.name)

    def gradients(
        self, real: Tensor, fake: Tensor, real_cotangent: Tensor | None, fake_cotangent: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(d/dr, d/df) of <cotangents, terms>; a cotangent already holds the weight and the 1/count of a mean."""
        dr, df = self.slopes(real, fake)
        if self.name in PAIRED:
            assert dr is not None and real_cotangent is not None
            return dr * real_cotangent, -dr * real_cotangent
        p = torch.zeros_like(real) if dr is None or real_cotangent is None else dr * real_cotangent
        q = torch.zeros_like(fake) if df is None or fake_cotangent is None else df * fake_cotangent
        if self.name in COUPLED:
            # The real terms hold -mean f, so every f_j receives -sum(p) / m, and the other way round.
            return p - q.sum() / real.numel(), q - p.sum() / fake.numel()
        return p, q


def spread(weight: Tensor | None, like: Tensor) -> Tensor:
    """A sample weight `[N]`, or one of the logits' shape, as a factor of every logit."""
    if weight is None:
        return torch.ones_like(like)
    if weight.shape == like.shape:
        return weight.to(like.dtype)
    return weight.to(like.dtype).reshape([-1] + [1] * (like.ndim - 1)).expand(like.shape)


def gradient_scale(name: str, gradient: Tensor, *logits: Tensor) -> float:
    """The magnitude a gradient is judged by: its largest element.

    A relativistic loss rounds a difference of logits before the sigmoid: half an ulp of the largest logit, which moves
    the sigmoid by a quarter of that at the most.
    """
    finite = [x.detach().double().abs().nan_to_num(0.0, 0.0, 0.0) for x in (gradient, *logits) if x.numel()]
    if not finite:
        return 0.0
    largest = finite[0].max().item()
    return largest * (1 + max(x.max().item() for x in finite[1:]) / 4) if name in NEEDS_REAL else largest


@dataclass(frozen=True)
class Truth:
    """Value, gradients per scale, and the sum of absolute terms (the magnitude that a bound needs)."""

    value: Tensor
    real_gradients: list[Tensor]
    fake_gradients: list[Tensor]
    magnitude: Tensor


def reduced(
    loss: Loss,
    reals: Sequence[Tensor],
    fakes: Sequence[Tensor],
    real_weights: Sequence[Tensor | None] | None = None,
    fake_weights: Sequence[Tensor | None] | None = None,
    reduction: str = "mean",
) -> Truth:
    """The reduced loss over a list of scales: each scale reduced on its own, then summed."""
    reals, fakes = [x.double() for x in reals], [x.double() for x in fakes]
    value = magnitude = torch.zeros((), dtype=torch.float64)
    real_gradients, fake_gradients = [], []
    for k, (r, f) in enumerate(zip(reals, fakes, strict=True)):
        w = spread(real_weights[k] if real_weights else None, r)
        v = spread(fake_weights[k] if fake_weights else None, f)
        if loss.name in PAIRED:
            w = w * v
        real_terms, fake_terms = loss.terms(r, f)
        for terms, weight in ((real_terms, w), (fake_terms, v)):
            if terms is not None:
                product = terms * weight
                value = value + (product.mean() if reduction == "mean" else product.sum())
                size = product.abs()
                magnitude = magnitude + (size.mean() if reduction == "mean" else size.sum())
        cotangents = (w / r.numel(), v / f.numel()) if reduction == "mean" else (w, v)
        dr, df = loss.gradients(r, f, *cotangents)
        real_gradients.append(dr)
        fake_gradients.append(df)
    return Truth(value, real_gradients, fake_gradients, magnitude)
