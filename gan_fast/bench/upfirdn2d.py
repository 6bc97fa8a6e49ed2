"""Resampling of `[8, 64, 64, 64]` by [1, 3, 3, 1]: up 2, down 2 and filter, against what users write in plain PyTorch.

The reference puts in the zeros, pads and convolves with groups, as code bases do where their extension does not build.
The eager composition touches no zero: a depthwise `conv_transpose2d` to upsample, a strided or plain depthwise
`conv2d` else. It is compiled too. `F.interpolate(mode="bilinear")` to the same size (63 x 63 for the filter, since to
its own size it copies) computes something else and is there as what a user knows to be fast, and a write of as many
numbers as the result has is the floor: a large result's new memory costs more than its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import gan_fast
from gan_fast import ops
from gan_fast.bench.cases import Case, Contender, Prepared, Role, WrongResult
from gan_fast.bench.losses import compiled

SHAPE = (8, 64, 64, 64)
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
CONTENDERS = ("gan_fast", "reference", "depthwise", "torch.compile", "bilinear", "write of the result")
BACKWARD_CONTENDERS = CONTENDERS[:4]


@dataclass(frozen=True)
class _Job:
    """What is computed, the best that plain PyTorch does for it, and the size of the result."""

    ours: Callable[[Tensor, Tensor], Tensor]
    plain: Callable[[Tensor, Tensor], Tensor]  # of the images and depthwise weights
    factor: float  # of the side
    reference_target: float


JOBS = {
    "up2": _Job(
        ops.upsample2d, lambda x, w: F.conv_transpose2d(x, w * 4, stride=2, padding=1, groups=x.shape[1]), 2.0, 5.0
    ),
    "down2": _Job(ops.downsample2d, lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=x.shape[1]), 0.5, 2.0),
    "filter": _Job(ops.filter2d, lambda x, w: F.conv2d(F.pad(x, [2, 1, 2, 1]), w, groups=x.shape[1]), 1.0, 2.0),
}


def case(name: str, dtype: torch.dtype, layout: str, backward: bool, shape: tuple[int, ...] = SHAPE) -> Case:
    """One job on images of `shape`, square."""
    job = JOBS[name]
    side = int(shape[-1] * job.factor)
    result = (*shape[:2], side, side)
    numbers = torch.Size(shape).numel() + torch.Size(result).numel()

    def build(device: torch.device) -> Prepared:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=generator).to(device, dtype, memory_format=LAYOUTS[layout])
        f = ops.setup_filter([1, 3, 3, 1], device)
        weight = f.to(dtype).expand(shape[1], 1, 4, 4).contiguous()

        def reference(images: Tensor, taps: Tensor) -> Tensor:
            with gan_fast.reference_mode():
                return job.ours(images, taps)

        def jobs(function: Callable[[Tensor, Tensor], Tensor], taps: Tensor) -> Callable[[], Sequence[Tensor]]:
            if not backward:
                return lambda: [function(x, taps)]
            leaf = x.detach().requires_grad_()
            cotangent = torch.ones(result, dtype=dtype, device=device).contiguous(memory_format=LAYOUTS[layout])

            def run() -> Sequence[Tensor]:
                y = function(leaf, taps)
                return [y.detach(), *torch.autograd.grad(y, leaf, cotangent)]

            return run

        contenders = [
            Contender("gan_fast", "ours", jobs(job.ours, f)),
            Contender("reference", "reference", jobs(reference, f)),
            Contender("depthwise", "eager", jobs(job.plain, weight)),
            Contender("torch.compile", "compiled", jobs(compiled(job.plain), weight)),
        ]
        if not backward:
            other = (side - 1, side - 1) if name == "filter" else (side, side)
            contenders += [
                _of_size(
                    "bilinear", "bilinear", lambda: F.interpolate(x, other, mode="bilinear"), (*shape[:2], *other)
                ),
                _of_size(
                    "write of the result", "other", lambda: torch.full(result, 1.0, dtype=dtype, device=device), result
                ),
            ]
        wide = x.double().requires_grad_()
        y = reference(wide, f)
        truth = [y.detach(), *(torch.autograd.grad(y.sum(), wide) if backward else [])]
        return Prepared(tuple(contenders), tuple(truth))

    targets: dict[Role, float] = {}
    if shape == SHAPE and dtype == torch.float32 and layout == "nchw" and not backward:
        targets = {"reference": job.reference_target, "bilinear": 1 / 1.5}
    return Case(
        name="/".join(
            ["upfirdn2d", name, *(["backward"] if backward else []), str(dtype).removeprefix("torch."), layout]
            + ([] if shape == SHAPE else ["x".join(map(str, shape))])
        ),
        group="resampling",
        size=torch.Size(shape).numel(),
        traffic=dtype.itemsize * numbers * (2 if backward else 1),
        contenders=BACKWARD_CONTENDERS if backward else CONTENDERS,
        build=build,
        targets=targets,
        rtol=1e-5 if dtype == torch.float32 else 2e-2,  # torch's own depthwise convolutions round in between
    )


def _of_size(name: str, role: Role, run: Callable[[], Tensor], shape: tuple[int, ...]) -> Contender:
    """Something of the result's size that is not the result."""

    def check() -> float:
        if run().shape != shape:
            raise WrongResult(f"{name} gives shape {list(run().shape)}, expected {list(shape)}; not timed")
        return 0.0

    return Contender(name, role, lambda: [run()], check)


def cases() -> list[Case]:
    """Every job forward in two dtypes and layouts, and forward with backward in float32."""
    forward = [
        case(name, dtype, layout, False)
        for name in JOBS
        for dtype in (torch.float32, torch.bfloat16)
        for layout in LAYOUTS
    ]
    return forward + [case(name, torch.float32, layout, True) for name in JOBS for layout in LAYOUTS]
