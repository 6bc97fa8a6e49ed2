"""Gradient penalties: functions of d logit / d image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def r1_penalty(real_logits: Tensor, real_images: Tensor, weight: float) -> Tensor:
    """weight/2 E |d logit / d real image|^2. Source: Mescheder, Geiger and Nowozin 2018."""
    (g,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return weight / 2 * g.square().flatten(1).sum(1).mean()


r2_penalty = r1_penalty


def gradient_penalty(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    center: float = 1.0,
    one_sided: bool = False,
    weight: float = 10.0,
    critic_kwargs: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """WGAN-GP. Source: Gulrajani et al. 2017."""
    shape = (len(real), *[1] * (real.dim() - 1))
    t = torch.rand(shape, generator=generator, device=real.device, dtype=real.dtype)
    x = torch.lerp(real.detach(), fake.detach(), t).requires_grad_()
    (g,) = torch.autograd.grad(critic(x, **(critic_kwargs or {})).sum(), x, create_graph=True)
    excess = g.flatten(1).square().sum(1).add(1e-12).sqrt() - center
    return weight * (excess.relu() if one_sided else excess).square().mean()


def dragan_penalty(
    critic: nn.Module,
    real: Tensor,
    *,
    weight: float = 10.0,
    critic_kwargs: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """DRAGAN. Source: Kodali et al. 2017."""
    noise = 0.5 * real.std() * torch.rand(real.shape, generator=generator, device=real.device, dtype=real.dtype)
    return gradient_penalty(critic, real, real + noise, weight=weight, critic_kwargs=critic_kwargs, generator=generator)
