"""Runs the plans of `plans.py`: the four ops of `modulated_convolution` by the Triton kernels.

Called below autograd with tensors of one CUDA device (of the CPU under TRITON_INTERPRET=1); no tensor may be empty.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from gan_fast.reference.modulated_convolution import memory_order
from gan_fast.triton import modulated_convolution as kernels
from gan_fast.triton import plans
from gan_fast.triton.plans import Plan, Target


def run(plan: Plan) -> None:
    """Launches on the current stream of the tensors' device."""
    device = plan.result.device
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel = getattr(kernels, plan.kernel)[plan.grid]
        kernel(*plan.arguments.values(), num_warps=plan.tile.warps, num_stages=plan.tile.stages)


def target_of(x: Tensor) -> Target:
    """The card that holds x; for tensors of the CPU the interpreter."""
    return Target.of(x.device) if x.device.type == "cuda" else Target(processors=4, interpreted=True)


def forward(
    x: Tensor,
    w: Tensor,
    s: Tensor | None,
    d: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    padding: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """y, as `reference.modulated_convolution.modulated_convolution` gives it."""
    plan = plans.product(
        x, w, s, d, target_of(x), padding=padding, noise=noise, bias=bias, act=act, alpha=alpha, gain=gain, clamp=clamp
    )
    run(plan)
    return plan.result.contiguous(memory_format=memory_order(x))


def input_gradient(
    dz: Tensor, w: Tensor, s: Tensor | None, d: Tensor | None, x: Tensor | None, padding: int
) -> tuple[Tensor, Tensor]:
    """dx, and ds where x is given."""
    plan = plans.product(dz, w, d, s, target_of(dz), padding=padding, transposed=True, other=x)
    run(plan)
    ds = plan.partials[0].sum(1) if plan.partials else dz.new_empty(0, dtype=torch.float32)
    return plan.result.contiguous(memory_format=memory_order(dz)), ds


def weight_gradient(dz: Tensor, x: Tensor, s: Tensor | None, d: Tensor | None, size: int, padding: int) -> Tensor:
    """dw, channels_last."""
    plan = plans.weight_gradient(dz, x, s, d, target_of(x), size=size, padding=padding)
    run(plan)
    dw = plan.result[0] if len(plan.result) == 1 else plan.result.sum(0).to(x.dtype)
    return dw.permute(0, 3, 1, 2)


def epilogue_gradient(
    dy: Tensor, y: Tensor, noise: Tensor | None, act: int, alpha: float, gain: float, clamp: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dz, sums and products."""
    plan = plans.epilogue_gradient(dy, y, noise, target_of(y), act=act, alpha=alpha, gain=gain, clamp=clamp)
    run(plan)
    sums, products = plan.partials
    return plan.result.contiguous(memory_format=memory_order(y)), sums.sum(1), products.sum(1)
