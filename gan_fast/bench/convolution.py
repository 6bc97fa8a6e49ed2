"""3x3 convolutions at stride 1, forward and backward, in float32: Winograd's kernels of the CPU beside oneDNN's.

All contenders get images and weights in the same memory order. Flops counted are those of the sum, which Winograd's
kernels do with 4/9 of the products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops
from gan_fast.bench.cases import Case, Contender, Prepared
from gan_fast.bench.losses import compiled

# images, channels in and out, side
SHAPES = ((8, 64, 64, 64), (8, 512, 512, 16), (8, 256, 256, 64))
ORDERS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
NAMES = ("gan_fast", "eager", "torch.compile")


def _job(function: Callable[..., Tensor], leaves: Sequence[Tensor], dy: Tensor) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        y = function(*leaves, padding=1)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    return run


def _case(shape: tuple[int, int, int, int], order: str, quick: bool) -> Case:
    n, i, o, side = shape

    def build(device: torch.device) -> Prepared:
        numbers = torch.Generator().manual_seed(0)

        def draw(*sizes: int) -> Tensor:
            x = torch.randn(sizes, generator=numbers)
            return x.to(device).contiguous(memory_format=ORDERS[order])

        leaves = [draw(n, i, side, side).requires_grad_(), draw(o, i, 3, 3).requires_grad_()]
        dy = draw(n, o, side, side)
        contenders = (
            Contender("gan_fast", "ours", _job(ops.conv2d, leaves, dy)),
            Contender("eager", "eager", _job(F.conv2d, leaves, dy)),
            Contender("torch.compile", "compiled", _job(compiled(F.conv2d), leaves, dy), slow=True),
        )
        truth = _job(F.conv2d, [x.detach().double().requires_grad_() for x in leaves], dy.double())()
        x, w = (leaf.detach() for leaf in leaves)
        return Prepared(contenders, tuple(truth), one_pass=lambda: F.conv2d(x, w, padding=1))

    return Case(
        name=f"conv2d_3x3/{'x'.join(map(str, shape))}/{order}",
        group="convolution",
        size=n * i * side * side,
        traffic=0,
        contenders=NAMES,
        build=build,
        targets={},  # on CUDA all are cuDNN's
        rtol=1e-5,
        least_rounds=9,
        quick=quick,
    )


def cases(shapes: Sequence[tuple[int, int, int, int]] = SHAPES) -> list[Case]:
    """Every shape in both memory orders."""
    return [_case(shape, order, shapes != SHAPES) for shape in shapes for order in ORDERS]
