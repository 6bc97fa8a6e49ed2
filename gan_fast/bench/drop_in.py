"""The drop-ins and feature matching, forward and backward in float32, against the torch functions they replace."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import losses
from gan_fast.bench.cases import Case, Contender, Prepared
from gan_fast.bench.losses import SHAPES, compiled, exact, forward_backward

Reduced = Callable[[Tensor, Tensor], Tensor]

# name -> (ours, torch's, tensors read, is the input a probability). softplus and logsigmoid are followed by a mean.
PAIRS: dict[str, tuple[Reduced, Reduced, int, bool]] = {
    "bce_with_logits": (losses.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, 2, False),
    "bce": (losses.binary_cross_entropy, F.binary_cross_entropy, 2, True),
    "softplus": (lambda x, t: losses.softplus(x).mean(), lambda x, t: F.softplus(x).mean(), 1, False),
    "logsigmoid": (lambda x, t: losses.logsigmoid(x).mean(), lambda x, t: F.logsigmoid(x).mean(), 1, False),
    "feature_matching": (lambda x, t: losses.feature_matching(t, x), F.l1_loss, 2, False),
}


def _case(name: str, size: int) -> Case:
    ours, theirs, tensors_read, probability = PAIRS[name]

    def build(device: torch.device) -> Prepared:
        generator = torch.Generator().manual_seed(0)
        x, t = (torch.randn(*SHAPES[size], generator=generator) for _ in range(2))
        x = (x.sigmoid() if probability else x).to(device).requires_grad_()
        target = t.sigmoid().to(device)
        contenders = (
            Contender("gan_fast", "ours", forward_backward(lambda a: ours(a, target), x)),
            Contender("eager", "eager", forward_backward(lambda a: theirs(a, target), x)),
            Contender("torch.compile", "compiled", forward_backward(compiled(lambda a: theirs(a, target)), x)),
        )
        return Prepared(contenders, exact(lambda a: theirs(a, target.to(a.dtype)), x))

    return Case(
        name=f"{name}/{size}",
        group="drop-ins",
        size=size,
        traffic=4 * size * (tensors_read + 1),
        contenders=("gan_fast", "eager", "torch.compile"),
        build=build,
    )


def cases() -> list[Case]:
    """Every drop-in at every size."""
    return [_case(name, size) for name in PAIRS for size in SHAPES]
