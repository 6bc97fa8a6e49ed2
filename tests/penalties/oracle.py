r"""The critic step as it is written, in plain PyTorch: what `penalties.critic_backward` must put into `.grad`.

    o = critic(augment(x)),  p = critic(augment(y))           real x_1..x_n, fake y_1..y_m, called one after the other
    total = loss(o, p) + r1/2 1/n sum_i |d o_i / d x_i|^2 + r2/2 1/m sum_j |d p_j / d y_j|^2
    image gradient = d generator_loss(o, p) / d y,  o held fixed

Losses are those of `support.adversarial_formulas`, written apart from the package's. Nothing here imports gan_fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from support.adversarial_formulas import Loss, spread


@dataclasses.dataclass(frozen=True)
class Step:
    """Gradients by parameter name (None where no logit depends on the parameter), and the numbers of the statistics."""

    gradients: dict[str, Tensor | None]
    loss: Tensor
    r1: Tensor
    r2: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    fake_image_grad: Tensor | None


def critic_step(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    loss: Loss,
    *,
    r1: float = 0.0,
    r2: float = 0.0,
    real_kwargs: Mapping[str, Any] | None = None,
    fake_kwargs: Mapping[str, Any] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    generator_loss: Loss | None = None,
    real_weight: Tensor | None = None,
    fake_weight: Tensor | None = None,
    reduction: str = "mean",
    joint: bool = False,
) -> Step:
    """The step of one critic, `.grad` left alone; `joint` calls it once on cat(real, fake), for one stream of draws.

    Both calls see the same power iteration of a spectral norm: its vectors are put back before the second.
    """
    x, y = real.detach().clone().requires_grad_(), fake.detach().clone().requires_grad_()
    real_kwargs, fake_kwargs, augment = real_kwargs or {}, fake_kwargs or {}, augment or (lambda images: images)
    if joint:
        both = {name: torch.cat([value, fake_kwargs[name]]) for name, value in real_kwargs.items()}
        o, p = critic(augment(torch.cat([x, y])), **both).split([len(x), len(y)])
    else:
        vectors = [buffer for name, buffer in critic.named_buffers() if name.endswith(("_u", "_v"))]
        before = [vector.clone() for vector in vectors]
        o = critic(augment(x), **real_kwargs)
        with torch.no_grad():
            for vector, value in zip(vectors, before, strict=True):
                vector.copy_(value)
        p = critic(augment(y), **fake_kwargs)

    value = _reduced(loss, o, p, real_weight, fake_weight, reduction)
    penalties = [_penalty(o, x, r1), _penalty(p, y, r2)]
    image_gradient = None
    if generator_loss is not None:
        goal = _reduced(generator_loss, o.detach(), p, None, None, "mean")
        (image_gradient,) = torch.autograd.grad(goal, y, retain_graph=True)

    named = {name: parameter for name, parameter in critic.named_parameters() if parameter.requires_grad}
    total = value + penalties[0] + penalties[1]
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return Step(
        dict(zip(named, gradients, strict=True)),
        value.detach(),
        penalties[0].detach(),
        penalties[1].detach(),
        o.detach(),
        p.detach(),
        image_gradient,
    )


def _reduced(loss: Loss, o: Tensor, p: Tensor, w: Tensor | None, v: Tensor | None, reduction: str) -> Tensor:
    real_terms, fake_terms = loss.terms(o, p)
    w, v = spread(w, o), spread(v, p)
    if loss.name == "relativistic":
        w = w * v
    weighted = [terms * weight for terms, weight in ((real_terms, w), (fake_terms, v)) if terms is not None]
    return sum((terms.mean() if reduction == "mean" else terms.sum()) for terms in weighted)  # type: ignore[return-value]


def _penalty(logits: Tensor, images: Tensor, weight: float) -> Tensor:
    """weight/2 times the mean over samples of the squared norm of a logit's image gradient."""
    if not weight:
        return logits.new_zeros(())
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return weight / 2 * gradient.square().sum() / len(images)
