"""The penalty on a given image gradient, forward and backward in float32, against what users write in plain PyTorch.

What the critic costs is not in it: `g` is a leaf. WGAN-GP is `((g.flatten(1).norm(dim=1) - 1) ** 2).mean()`, R1
`g.square().flatten(1).sum(1).mean() / 2`. Shapes are `[64, 3, 32, 32]`, `[16, 3, 256, 256]` and toy points `[256, 2]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gan_fast.bench.cases import Case, Contender, Prepared
from gan_fast.bench.losses import compiled, exact, forward_backward
from gan_fast.reference.gradient_penalty import Kind

SHAPES = ((256, 2), (64, 3, 32, 32), (16, 3, 256, 256))
# name -> (kind, weight, plain PyTorch)
PLAIN: dict[str, tuple[Kind, float, Callable[[Tensor], Tensor]]] = {
    "wgan_gp": (Kind.TWO_SIDED, 10.0, lambda g: 10 * (g.flatten(1).norm(2, dim=1) - 1).square().mean()),
    "r1": (Kind.SQUARE, 10.0, lambda g: 5 * g.square().flatten(1).sum(1).mean()),
}


def _case(name: str, shape: tuple[int, ...]) -> Case:
    kind, weight, plain = PLAIN[name]
    size = torch.Size(shape).numel()

    def ours(g: Tensor) -> Tensor:
        penalty: Tensor = torch.ops.gan_fast.gradient_penalty(g, int(kind), 1.0, weight)[0]
        return penalty

    def build(device: torch.device) -> Prepared:
        g = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
        contenders = (
            Contender("gan_fast", "ours", forward_backward(ours, g)),
            Contender("eager", "eager", forward_backward(plain, g)),
            Contender("torch.compile", "compiled", forward_backward(compiled(plain), g)),
        )
        return Prepared(contenders, exact(plain, g))

    return Case(
        name=f"penalty/{name}/{size}",
        group="gradient penalties",
        size=size,
        traffic=4 * size * 3,  # the norm must be known before the gradient can be written: g is read twice
        contenders=("gan_fast", "eager", "torch.compile"),
        build=build,
    )


def cases() -> list[Case]:
    """Both penalties at every shape."""
    return [_case(name, shape) for name in PLAIN for shape in SHAPES]
