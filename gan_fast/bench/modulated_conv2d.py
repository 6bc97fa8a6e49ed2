"""Modulated convolution 3x3 with demodulation, forward and backward, on images [8, 256, 64, 64].

The two formulations in plain PyTorch, each in the layout that suits it best (the other was measured too):

    grouped    sample n with its own weights w_n = d_n s_n W, as the groups of one convolution: contiguous
    scaled     d conv(s x; W), one shared convolution, channels_last images and weights

The convolution alone, forward, input and weight gradient, is the floor: what is around it takes some time too.
In bfloat16 the images are bfloat16 and the parameters float32, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops
from gan_fast.bench.cases import Case, Contender, Prepared
from gan_fast.bench.losses import compiled

SHAPE = (8, 256, 64, 64)
FLOOR = "convolution alone"
NAMES = ("gan_fast", "eager grouped", "eager scaled", "torch.compile", FLOOR)
# Least ratio to the faster of the two formulations.
EAGER_TARGETS = {torch.float32: 1.05, torch.bfloat16: 1.2}
EPS = 1e-8


def grouped(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
    """One set of weights for every sample."""
    n = len(x)
    w = weight * styles[:, None, :, None, None]
    w = w * (w.square().sum([2, 3, 4], keepdim=True) + EPS).rsqrt()
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), w.flatten(0, 1).to(x.dtype), padding=1, groups=n)
    return y.reshape(n, -1, *y.shape[2:])


def scaled(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
    """Scaled images around one convolution."""
    d = (styles.square() @ weight.square().sum([2, 3]).t() + EPS).rsqrt().to(x.dtype)
    y = F.conv2d(x * styles.to(x.dtype)[:, :, None, None], weight.to(x.dtype), padding=1)
    return y * d[:, :, None, None]


def ours(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
    return ops.modulated_conv2d(x, weight, styles, padding=1)


def _job(function: Callable[..., Tensor], leaves: Sequence[Tensor], cotangent: Tensor) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        y = function(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, cotangent)]

    return run


def _convolution_alone(x: Tensor, weight: Tensor, cotangent: Tensor) -> Callable[[], list[Tensor]]:
    w = weight.detach().to(x.dtype)
    leaves = [x.detach().requires_grad_(), w.requires_grad_()]
    return _job(lambda x, w: F.conv2d(x, w, padding=1), leaves, cotangent)


def _case(dtype: torch.dtype, shape: tuple[int, int, int, int], quick: bool) -> Case:
    n, c = shape[:2]

    def build(device: torch.device) -> Prepared:
        numbers = torch.Generator().manual_seed(0)
        images = torch.randn(shape, generator=numbers).to(device, dtype)
        weight = torch.randn(c, c, 3, 3, generator=numbers).to(device)
        styles = (1 + 0.3 * torch.randn(n, c, generator=numbers)).to(device)
        cotangent = torch.randn(shape, generator=numbers).to(device, dtype)
        last = torch.channels_last
        flat = [t.clone().requires_grad_() for t in (images, weight, styles)]
        tall = [t.to(memory_format=last).clone().requires_grad_() for t in (images, weight)]
        tall.append(styles.clone().requires_grad_())
        tall_cotangent = cotangent.contiguous(memory_format=last)
        contenders = (
            Contender("gan_fast", "ours", _job(ours, tall, tall_cotangent)),
            Contender("eager grouped", "eager", _job(grouped, flat, cotangent)),
            Contender("eager scaled", "eager", _job(scaled, tall, tall_cotangent)),
            Contender("torch.compile", "compiled", _job(compiled(scaled), tall, tall_cotangent), slow=True),
            Contender(FLOOR, "other", _convolution_alone(tall[0], tall[1], tall_cotangent), check=lambda: 0.0),
        )
        exact = [t.detach().double().requires_grad_() for t in flat]
        truth = _job(scaled, exact, cotangent.double())()
        return Prepared(contenders, tuple(truth), one_pass=lambda: F.conv2d(images, weight.to(dtype), padding=1))

    return Case(
        name=f"modulated_conv2d/{'x'.join(map(str, shape))}/{str(dtype).removeprefix('torch.')}",
        group="modulated convolution",
        size=torch.Size(shape).numel(),
        traffic=0,
        contenders=NAMES,
        build=build,
        targets={"eager": EAGER_TARGETS[dtype]} if shape == SHAPE else {},
        # against the largest entry: a bfloat16 image is rounded before and after the convolution
        rtol=1e-5 if dtype == torch.float32 else 2e-2,
        least_rounds=9,
        quick=quick,
    )


def cases(shape: tuple[int, int, int, int] = SHAPE) -> list[Case]:
    """float32 and bfloat16."""
    return [_case(dtype, shape, shape != SHAPE) for dtype in EAGER_TARGETS]
