"""The exact critic step: the gradient of loss + r1/2 R1 + r2/2 R2 in `.grad` of the critic's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gan_fast.losses import AdversarialLoss, CriticStats, Debts

Plan = Literal["auto", "shared", "autograd"]


def critic_backward(
    critic: nn.Module | Sequence[nn.Module],
    *,
    real: Tensor,
    fake: Tensor,
    loss: AdversarialLoss,
    r1: float = 0.0,
    r2: float = 0.0,
    critic_kwargs: Mapping[str, Any] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    generator_loss: AdversarialLoss | None = None,
    real_weight: Tensor | None = None,
    fake_weight: Tensor | None = None,
    scale: float | Tensor = 1.0,
    sync: bool = True,
    plan: Plan = "auto",
) -> CriticStats:
    """Accumulate the gradient of loss + r1/2 R1 + r2/2 R2 into `.grad` of the critic's parameters."""
    assert isinstance(critic, nn.Module)
    x, y = real.detach().requires_grad_(), fake.detach().requires_grad_()
    kwargs = critic_kwargs or {}
    augment = augment or (lambda images: images)
    real_logits, fake_logits = critic(augment(x), **kwargs), critic(augment(y), **kwargs)
    value, stats = loss.discriminator(real=real_logits, fake=fake_logits, with_stats=True)
    total = value
    penalties = []
    for logits, images, weight in ((real_logits, x, r1), (fake_logits, y, r2)):
        (g,) = torch.autograd.grad(logits.sum(), images, create_graph=bool(weight), retain_graph=True)
        penalties.append(weight / 2 * g.square().flatten(1).sum(1).mean())
        total = total + penalties[-1]
    image_grad = g_loss = None
    if generator_loss is not None:
        g_loss = generator_loss.generator(fake=fake_logits, real=real_logits.detach())
        (image_grad,) = torch.autograd.grad(g_loss, y, retain_graph=True)
    (total * scale).backward(inputs=list(critic.parameters()))
    return stats._replace(
        r1=penalties[0].detach(),
        r2=penalties[1].detach(),
        fake_image_grad=image_grad,
        generator_loss=None if g_loss is None else g_loss.detach(),
        plan="autograd",
        debts=Debts(),
    )
