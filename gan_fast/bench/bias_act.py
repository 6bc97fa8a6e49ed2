"""`ops.bias_act` against what users write in plain PyTorch, forward alone and with its backward, in both memory orders.

lrelu is a StyleGAN2 critic's layer: bias, leaky ReLU, gain, at `[8, 128, 128, 128]` in float32. The epilogue is a
synthesis layer's: demodulation `[N, C]`, noise, bias, leaky ReLU, gain and clamp in bfloat16. What a pass must move is
its big tensors: two forward (x, y), three backward (dy, dx and the result), and x where the scale learns.

On the CPU a fresh result costs page faults beside its bytes, so a copy into fresh memory stands beside the usual copy
into memory that is already there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops
from gan_fast.bench.cases import Case, Contender, Job, Prepared, Role, WrongResult
from gan_fast.bench.losses import compiled

SHAPE, SMALL = (8, 128, 128, 128), (2, 8, 12, 12)
FEW = (8, 8, 64, 64)
GAIN = 2**0.5
FRESH = "copy into fresh memory"
TARGETS: dict[Role, float] = {"eager": 2.5, "compiled": 0.97, "other": 0.7}
Layer = Callable[..., Tensor]


def _bias_lrelu(x: Tensor, b: Tensor) -> Tensor:
    return F.leaky_relu(x + b.view(1, -1, 1, 1), 0.2) * GAIN


def _epilogue(x: Tensor, b: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    y = x * scale[:, :, None, None].to(x.dtype) + noise.to(x.dtype)
    return (F.leaky_relu(y + b.view(1, -1, 1, 1).to(x.dtype), 0.2) * GAIN).clamp(-256, 256)


# name -> (plain, ours, dtype of x, number of leaves beside x, tensors moved forward and backward, tolerance)
LAYERS: dict[str, tuple[Layer, Layer, torch.dtype, int, int, float]] = {
    "lrelu": (_bias_lrelu, lambda x, b: ops.bias_act(x, b, act="lrelu"), torch.float32, 1, 5, 1e-5),
    "epilogue": (
        _epilogue,
        lambda x, b, scale, noise: ops.bias_act(x, b, act="lrelu", clamp=256, scale=scale, noise=noise),
        torch.bfloat16,
        3,
        6,
        4e-2,
    ),
}


def _agrees_on_the_whole(what: str, job: Job, truth: Sequence[Tensor], rtol: float) -> Callable[[], float]:
    """A check by norms: where bfloat16 rounds between steps, signs at the kink differ, and with them whole elements."""

    def check() -> float:
        worst = max(
            float((a.detach().double() - b).norm() / b.norm().clamp_min(1e-30))
            for a, b in zip(job(), truth, strict=True)
        )
        if not worst <= rtol:
            raise WrongResult(f"{what} is off by {worst:.3g} of the norm, allowed {rtol:g}; not timed")
        return worst

    return check


def case(name: str, layout: str, backward: bool, shape: tuple[int, ...] = SHAPE) -> Case:
    """One pass of one layer on images of `shape`."""
    plain, ours, dtype, count, moved, rtol = LAYERS[name]
    size, narrow = torch.Size(shape).numel(), dtype.itemsize < 4
    traffic = size * dtype.itemsize * (moved if backward else 2)

    def build(device: torch.device) -> Prepared:
        generator = torch.Generator().manual_seed(0)
        n, c, h, w = shape
        order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        x, dy = (torch.randn(shape, generator=generator).to(dtype).to(memory_format=order) for _ in range(2))
        small = [torch.randn(s, generator=generator) for s in ((c,), (n, c), (n, 1, h, w))[:count]]
        leaves = [t.to(device).requires_grad_(backward) for t in (x, *small)]
        up = dy.to(device)

        def job(layer: Layer, tensors: Sequence[Tensor] = leaves, up: Tensor = up) -> Callable[[], Sequence[Tensor]]:
            def run() -> Sequence[Tensor]:
                y = layer(*tensors)
                return [y, *torch.autograd.grad(y, tensors, up)] if backward else [y]

            return run

        wide = [t.detach().double().requires_grad_(backward) for t in leaves]
        truth = tuple(t.detach() for t in job(plain, wide, up.double())())
        source = torch.ones(max(traffic // 8, 1), device=device)
        jobs: tuple[tuple[str, Role, Job], ...] = (
            ("gan_fast", "ours", job(ours)),
            ("eager", "eager", job(plain)),
            ("torch.compile", "compiled", job(compiled(plain))),
        )
        contenders = (
            *(
                Contender(title, role, run, _agrees_on_the_whole(title, run, truth, rtol) if narrow else None)
                for title, role, run in jobs
            ),
            Contender(FRESH, "other", lambda: [source.clone()], check=lambda: 0.0),
        )
        return Prepared(contenders, truth)

    passes = "forward_backward" if backward else "forward"
    return Case(
        name=f"bias_act/{name}/{layout}/{passes}",
        group="bias and activation",
        size=size,
        traffic=traffic,
        contenders=("gan_fast", "eager", "torch.compile", FRESH),
        build=build,
        targets=TARGETS,
        rtol=rtol,
    )


def cases(small: bool = False) -> list[Case]:
    """Both layers in both memory orders, and one of few channels; `small` shows that they run."""
    shape = SMALL if small else SHAPE
    found = [
        case(name, layout, backward, shape)
        for name in LAYERS
        for layout in ("nchw", "channels_last")
        for backward in (False, True)
    ]
    # Fewer channels than a vector holds: pixels share one.
    few = [case("lrelu", "channels_last", backward, SMALL if small else FEW) for backward in (False, True)]
    return found + [replace(c, name=f"{c.name}/few_channels", targets={}) for c in few]
