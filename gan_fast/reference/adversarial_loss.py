r"""Adversarial losses over lists of logits, in plain PyTorch.

Every adversarial loss of `gan_fast.losses` is a sum over the logits of one elementwise term per side,

    term(x) = scale * phi(x) + slope * x

    LINEAR     phi(x) = x
    SOFTPLUS   phi(x) = softplus(p x)                     softplus(u) = log(1 + e^u)
    HINGE      phi(x) = max(0, 1 + p x)
    SQUARE     phi(x) = (x - p)^2 / 2
    PAIR       phi(r, f) = softplus(p (r - f))            one term for real and fake together
    AVERAGE    phi(r) = softplus(p (r - mean f)),  phi(f) = softplus(p' (f - mean r))

with (p, scale, slope) given per side. Terms are multiplied by the sample weights, then averaged or summed over each
scale (one tensor of the list), then summed over the scales.

Sources: Goodfellow et al. 2014 (SOFTPLUS), Arjovsky et al. 2017 (LINEAR), Lim and Ye 2017 and Miyato et al. 2018
(HINGE), Mao et al. 2017 (SQUARE), Jolicoeur-Martineau 2018 and Huang et al. 2024 (PAIR, AVERAGE).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class Kind(enum.IntEnum):
    """The elementwise term; the values are those of `csrc/adversarial_loss/adversarial_loss.h`."""

    LINEAR = 0
    SOFTPLUS = 1
    HINGE = 2
    SQUARE = 3
    PAIR = 4
    AVERAGE = 5


NONE, MEAN, SUM = 0, 1, 2


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which terms are computed and summed: float64 for float64, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def softplus(u: Tensor) -> Tensor:
    """log(1 + e^u), without torch's linear branch above 20, stable to second order."""
    return -F.logsigmoid(-u)


def _phi(kind: int, x: Tensor, p: float) -> Tensor:
    if kind == Kind.LINEAR:
        return x
    if kind in (Kind.SOFTPLUS, Kind.PAIR, Kind.AVERAGE):
        return softplus(p * x)
    if kind == Kind.HINGE:
        return F.relu(1 + p * x)
    return 0.5 * (x - p).square()


def _term(kind: int, x: Tensor, spec: Sequence[float]) -> Tensor:
    p, scale, slope = spec
    value = scale * _phi(kind, x, p)
    return value + slope * x if slope else value


def _weighted(value: Tensor, *weights: Tensor | None) -> Tensor:
    for w in weights:
        if w is not None:
            w = w.to(value.dtype)
            value = value * (w if w.shape == value.shape else w.reshape(-1, *[1] * (value.dim() - 1)))
    return value


def check(
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    real_weight: Sequence[Tensor],
    fake_weight: Sequence[Tensor],
    kind: int,
) -> None:
    """Raise what the fused op raises for arguments that do not fit; reads shapes, dtypes and devices only."""
    if not real and not fake:
        raise ValueError("an adversarial loss got no logits; pass a tensor or a list of tensors")
    if real and fake and len(real) != len(fake):
        raise ValueError(f"got {len(real)} scales of real logits and {len(fake)} of fake; expected as many of each")
    first = (*fake, *real)[0]
    for side, logits, weights in (("real", real, real_weight), ("fake", fake, fake_weight)):
        if weights and len(weights) != len(logits):
            raise ValueError(
                f"{side}_weight has {len(weights)} tensors for {len(logits)} tensors of {side} logits; "
                "give one a tensor, or none"
            )
        for x in logits:
            if x.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
                raise TypeError(f"expected a float32, float64, bfloat16 or float16 tensor, but got {x.dtype}")
            if x.dtype != first.dtype:
                raise ValueError(
                    f"{side} logits are {x.dtype} but others are {first.dtype}; convert one of them, "
                    f"for instance with .to({first.dtype})"
                )
            if x.device != first.device:
                raise ValueError(
                    f"{side} logits are on {x.device} but others are on {first.device}; move them to one device"
                )
        for x, w in zip(logits, weights, strict=False):
            if w.shape != x.shape and not (x.dim() > 0 and w.dim() == 1 and w.shape[0] == x.shape[0]):
                raise ValueError(
                    f"{side}_weight has shape {list(w.shape)} for logits of shape {list(x.shape)}; "
                    "expected one weight a sample, [N], or one a logit"
                )
            if w.device != x.device:
                raise ValueError(f"{side}_weight is on {w.device} but its logits are on {x.device}")
            if w.requires_grad:
                raise ValueError(
                    f"{side}_weight requires grad, but weights are constants of the loss; pass {side}_weight.detach()"
                )
    if kind in (Kind.PAIR, Kind.AVERAGE) and not (real and fake):
        raise ValueError("a relativistic loss compares real with fake logits: it needs both")
    if kind == Kind.PAIR:
        for r, f in zip(real, fake, strict=True):
            if r.shape != f.shape:
                raise ValueError(
                    f"real logits have shape {list(r.shape)} and fake logits {list(f.shape)}; a relativistic loss "
                    "pairs them one by one, so their shapes must be equal"
                )


def adversarial_terms(
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    real_weight: Sequence[Tensor],
    fake_weight: Sequence[Tensor],
    kind: int,
    real_term: Sequence[float],
    fake_term: Sequence[float],
) -> list[Tensor]:
    """The weighted terms of every logit, in the accumulation dtype: real's of each scale, then fake's.

    For PAIR one tensor a scale. A side whose list is empty has no terms. Differentiable to any order.
    """
    real_up = [x.to(accumulate_dtype(x)) for x in real]
    fake_up = [x.to(accumulate_dtype(x)) for x in fake]
    rw: Sequence[Tensor | None] = real_weight or [None] * len(real)
    fw: Sequence[Tensor | None] = fake_weight or [None] * len(fake)
    if kind == Kind.PAIR:
        pairs = zip(real_up, fake_up, rw, fw, strict=True)
        return [_weighted(_term(kind, r - f, real_term), wr, wf) for r, f, wr, wf in pairs]
    if kind == Kind.AVERAGE:
        real_in = [r - f.mean() for r, f in zip(real_up, fake_up, strict=True)]
        fake_in = [f - r.mean() for r, f in zip(real_up, fake_up, strict=True)]
    else:
        real_in, fake_in = real_up, fake_up
    return [_weighted(_term(kind, x, real_term), w) for x, w in zip(real_in, rw, strict=True)] + [
        _weighted(_term(kind, x, fake_term), w) for x, w in zip(fake_in, fw, strict=True)
    ]


def statistics(loss: Tensor, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """`[5]`: loss, mean of real, mean of fake, mean sign of real, mean sign of fake; NaN for a side that is absent."""
    means = []
    for side in (real, fake):
        flat = torch.cat([x.detach().flatten().to(loss.dtype) for x in side]) if side else loss.new_empty(0)
        means.append((flat.mean(), flat.sign().mean()))
    (rm, rs), (fm, fs) = means
    return torch.stack([loss.detach(), rm, fm, rs, fs])


def adversarial_loss(
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    real_weight: Sequence[Tensor],
    fake_weight: Sequence[Tensor],
    kind: int,
    real_term: Sequence[float],
    fake_term: Sequence[float],
    reduction: int,
    with_stats: bool,
) -> tuple[Tensor, Tensor]:
    """The reduced loss, 0-dim in the accumulation dtype, and its statistics `[5]` (`[0]` unless asked for)."""
    terms = adversarial_terms(real, fake, real_weight, fake_weight, kind, real_term, fake_term)
    loss = torch.stack([t.mean() if reduction == MEAN else t.sum() for t in terms]).sum()
    return loss, statistics(loss, real, fake) if with_stats else loss.new_empty(0)


def adversarial_loss_backward(
    grads: Sequence[Tensor],
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    real_weight: Sequence[Tensor],
    fake_weight: Sequence[Tensor],
    kind: int,
    real_term: Sequence[float],
    fake_term: Sequence[float],
    reduction: int,
) -> list[Tensor]:
    """Gradient of the loss for every logit, real's of each scale, then fake's, each in its logits' dtype.

    `grads` is the one gradient of the reduced loss, or one tensor a term for reduction none. Differentiable.

        d term / dx = scale * phi'(x) + slope;  PAIR: minus that for f;
        AVERAGE: each side also passes the mean of its terms' derivatives to the other, with a minus.
    """
    dtype = accumulate_dtype((*real, *fake)[0])
    rw: Sequence[Tensor | None] = real_weight or [None] * len(real)
    fw: Sequence[Tensor | None] = fake_weight or [None] * len(fake)

    def cotangent(i: int, x: Tensor, *weights: Tensor | None) -> Tensor:
        if reduction == NONE:
            g = grads[i].to(dtype)
        else:
            g = (grads[0].to(dtype) / (max(x.numel(), 1) if reduction == MEAN else 1)).expand(x.shape)
        return _weighted(g, *weights)

    def derivative(x: Tensor, spec: Sequence[float]) -> Tensor:
        p, scale, slope = spec
        if kind == Kind.LINEAR:
            return torch.full_like(x, scale + slope)
        if kind == Kind.HINGE:
            # relu's rule: 0 at the corner, the gradient itself where the value is NaN
            return scale * p * (~(1 + p * x <= 0)).to(x.dtype) + slope
        if kind == Kind.SQUARE:
            return scale * (x - p) + slope
        return scale * p * torch.sigmoid(p * x) + slope

    out: list[Tensor] = []
    n = len(real)
    if kind == Kind.PAIR:
        for i, (r, f, wr, wf) in enumerate(zip(real, fake, rw, fw, strict=True)):
            out.append(cotangent(i, r, wr, wf) * derivative(r.to(dtype) - f.to(dtype), real_term))
        return [g.to(r.dtype) for g, r in zip(out, real, strict=True)] + [
            -g.to(f.dtype) for g, f in zip(out, fake, strict=True)
        ]
    up_real, up_fake = [x.to(dtype) for x in real], [x.to(dtype) for x in fake]
    if kind == Kind.AVERAGE:
        dr = [
            cotangent(i, r, w) * derivative(r - f.mean(), real_term)
            for i, (r, f, w) in enumerate(zip(up_real, up_fake, rw, strict=True))
        ]
        df = [
            cotangent(n + i, f, w) * derivative(f - r.mean(), fake_term)
            for i, (r, f, w) in enumerate(zip(up_real, up_fake, fw, strict=True))
        ]
        out = [a - b.sum() / a.numel() for a, b in zip(dr, df, strict=True)]
        out += [b - a.sum() / b.numel() for a, b in zip(dr, df, strict=True)]
    else:
        out = [cotangent(i, x, w) * derivative(x, real_term) for i, (x, w) in enumerate(zip(up_real, rw, strict=True))]
        out += [
            cotangent(n + i, x, w) * derivative(x, fake_term) for i, (x, w) in enumerate(zip(up_fake, fw, strict=True))
        ]
    return [g.to(x.dtype) for g, x in zip(out, (*real, *fake), strict=True)]
