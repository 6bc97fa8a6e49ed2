"""What is added to an adversarial loss: feature matching, cycle consistency, identity, auxiliary classification."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast._modes import use_reference
from gan_fast.reference import l1_distance as reference
from gan_fast.reference.adversarial_loss import accumulate_dtype

Features = Tensor | Sequence[Tensor]


def _as_list(features: Features) -> list[Tensor]:
    return [features] if isinstance(features, Tensor) else list(features)


def _distance(a: Features, b: Features) -> Tensor:
    if use_reference():
        reference.check(_as_list(a), _as_list(b))
        return reference.l1_distance(_as_list(a), _as_list(b))
    return torch.ops.gan_fast.l1_distance(_as_list(a), _as_list(b), False)[0]


def feature_matching(real_features: Features, fake_features: Features, *, moments: bool = False) -> Tensor:
    """How far the critic's features of generated samples are from those of real ones; real is a constant.

    Args:
        real_features: a tensor `[N, ...]` or a list of them, one a layer. Detached here.
        fake_features: the same layers for generated samples, of equal shapes unless `moments`.
        moments: False: sum over layers of mean |real - fake|, sample by sample (Wang et al. 2018, pix2pixHD; Kong et
            al. 2020, HiFi-GAN). True: sum over layers of || mean_N real - mean_N fake ||^2 (Salimans et al. 2016).

    Returns:
        0-dim, float32 (float64 for float64 features); differentiable for `fake_features`.
    """
    real = [x.detach() for x in _as_list(real_features)]
    fake = _as_list(fake_features)
    if not moments:
        return _distance(fake, real)
    if len(real) != len(fake):
        raise ValueError(f"feature_matching got {len(real)} real and {len(fake)} fake layers; expected as many of each")
    up = [(accumulate_dtype(r), r, f) for r, f in zip(real, fake, strict=True)]
    return torch.stack([(r.to(t).mean(0) - f.to(t).mean(0)).square().sum() for t, r, f in up]).sum()


def cycle_consistency(real: Tensor, reconstructed: Tensor, weight: float = 10.0) -> Tensor:
    """weight * mean |real - F(G(real))|. Source: Zhu et al. 2017, equation 2, lambda = 10."""
    return weight * _distance(reconstructed, real)


def identity(real: Tensor, mapped: Tensor, weight: float = 5.0) -> Tensor:
    """weight * mean |real - G(real)| for real already in G's target domain; 5 is half the cycle weight, as published.

    Source: Zhu et al. 2017, section 5.2.
    """
    return weight * _distance(mapped, real)


def auxiliary_classifier(class_logits: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
    """weight * cross entropy of the critic's class logits `[N, K]` with integer labels `[N]`.

    Source: Odena et al. 2017.
    """
    return weight * F.cross_entropy(class_logits, labels)
