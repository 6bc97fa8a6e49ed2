"""The CUDA kernels of the `modulated_convolution` ops: for each product the implementation that `rule.py` names.

float64, empty tensors, images of 2^31 numbers and more, and machines without Triton have the shared convolution.

A step makes hundreds of these calls, and the card waits for none of them longer than for what Python does before a
launch: what is decided for a kind of call (`plans.kind_of`) is looked up, and nothing is checked or named again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from gan_fast.reference import modulated_convolution as reference
from gan_fast.triton import plans, reason_said_once, rule, shared
from gan_fast.triton.plans import Kind, kind_of

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def _can(*images: Tensor) -> bool:
    """Whether the kernels take these tensors at all; a missing Triton is said once."""
    if any(x.numel() == 0 or x[0].numel() >= 2**31 or x.dtype not in DTYPES for x in images):
        return False
    return reason_said_once(images[0].device) is None


def _kind(x: Tensor) -> str:
    name = _NAMES[x.dtype]
    return f"{name}-{plans.precision(x.dtype)}" if x.dtype == torch.float32 else name


def _order(x: Tensor) -> str:
    return "nhwc" if plans.order_of(x) == torch.channels_last else "nchw"


def _flags(**given: Tensor | None) -> str:
    return "+".join(name for name, tensor in given.items() if tensor is not None) or "plain"


def _choose(
    x: Tensor, kind: Kind | None, key: str, exact: Hashable, kernel: Callable[[], Any], other: Callable[[], Any]
) -> Any:
    card = torch.cuda.get_device_name(x.device)
    with torch.cuda.device(x.device):
        result = rule.run(card, key, exact, kernel, other, torch.cuda.is_current_stream_capturing())
    rule.settle(kind, rule.decision(card, key, exact))
    return result


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
    """`gan_fast::modulated_convolution`."""
    w = w.to(x.dtype)  # nothing where it is of it: the kernels' products are of one dtype
    arguments = (x, w, s, d, noise, bias, padding, act, alpha, gain, clamp)
    kind = kind_of("forward", (x, w, s, d, noise, bias), (padding, act, alpha, gain, clamp))
    fused = rule.settled(kind)
    if fused is False:
        return shared.forward(*arguments)
    if fused:
        from gan_fast.triton import launch

        return launch.forward(*arguments, kind)
    reference.check(x, w, s, d, noise, bias, padding, act, gain)
    grown = 2 * padding + 1 - w.shape[2]
    pixels = max(0, x.shape[2] + grown) * max(0, x.shape[3] + grown)
    if not _can(x, w) or not 0 < pixels * w.shape[0] < 2**31:
        rule.settle(kind, False)
        return shared.forward(*arguments)
    from gan_fast.triton import launch

    key = rule.key_of(
        "forward",
        x.shape[0],
        _channels(w.shape[1], w.shape[0]),
        _size(w.shape[2], padding),
        _pixels(x),
        _kind(x),
        _order(x),
        _flags(s=s, d=d),
    )
    exact = len(x), act != 0, clamp >= 0, *((t.dtype, t.shape) if t is not None else None for t in (noise, bias))
    return _choose(x, kind, key, exact, lambda: launch.forward(*arguments, kind), lambda: shared.forward(*arguments))


def input_gradient(
    dz: Tensor, w: Tensor, s: Tensor | None, d: Tensor | None, x: Tensor | None, padding: int
) -> tuple[Tensor, Tensor]:
    """`gan_fast::modulated_convolution_input_gradient`."""
    w = w.to(dz.dtype)
    arguments = (dz, w, s, d, x, padding)
    kind = kind_of("input gradient", (dz, w, s, d, x), (padding,))
    fused = rule.settled(kind)
    if fused is False:
        return shared.input_gradient(*arguments)
    if fused:
        from gan_fast.triton import launch

        return launch.input_gradient(*arguments, kind)
    grown = w.shape[2] - 1 - 2 * padding
    pixels = (dz.shape[2] + grown) * (dz.shape[3] + grown)
    if not _can(dz, w) or not 0 < pixels * w.shape[1] < 2**31:
        rule.settle(kind, False)
        return shared.input_gradient(*arguments)
    from gan_fast.triton import launch

    key = rule.key_of(
        "input-gradient",
        dz.shape[0],
        _channels(w.shape[0], w.shape[1]),
        _size(w.shape[2], padding),
        _pixels(dz),
        _kind(dz),
        _order(dz),
        _flags(s=s, d=d, ds=x),
    )
    return _choose(
        dz,
        kind,
        key,
        len(dz),
        lambda: launch.input_gradient(*arguments, kind),
        lambda: shared.input_gradient(*arguments),
    )


def weight_gradient(dz: Tensor, x: Tensor, s: Tensor | None, d: Tensor | None, size: int, padding: int) -> Tensor:
    """`gan_fast::modulated_convolution_weight_gradient`."""
    arguments = (dz, x, s, d, size, padding)
    kind = kind_of("weight gradient", (dz, x, s, d), (size, padding))
    fused = rule.settled(kind)
    if fused is False:
        return shared.weight_gradient(*arguments)
    if fused:
        from gan_fast.triton import launch

        return launch.weight_gradient(*arguments, kind)
    if not _can(dz, x):
        rule.settle(kind, False)
        return shared.weight_gradient(*arguments)
    from gan_fast.triton import launch

    key = rule.key_of(
        "weight-gradient",
        x.shape[0],
        _channels(x.shape[1], dz.shape[1]),
        _size(size, padding),
        _pixels(x),
        _kind(x),
        _order(x),
        _flags(s=s, d=d),
    )
    return _choose(
        x,
        kind,
        key,
        len(x),
        lambda: launch.weight_gradient(*arguments, kind),
        lambda: shared.weight_gradient(*arguments),
    )


def epilogue_gradient(
    dy: Tensor, y: Tensor, noise: Tensor | None, act: int, alpha: float, gain: float, clamp: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`gan_fast::modulated_convolution_epilogue_gradient`: one pass, beside which plain PyTorch is measured."""
    arguments = (dy, y, noise, act, alpha, gain, clamp)
    kind = kind_of("epilogue gradient", (dy, y, noise), (act, alpha, gain, clamp))
    fused = rule.settled(kind)
    if fused is False:
        return reference.epilogue_gradient(*arguments)
    if fused:
        from gan_fast.triton import launch

        return launch.epilogue_gradient(*arguments, kind)
    if not _can(dy, y):
        rule.settle(kind, False)
        return reference.epilogue_gradient(*arguments)
    from gan_fast.triton import launch

    key = rule.key_of("epilogue-gradient", len(y), y.shape[1], _pixels(y), _NAMES[y.dtype], _order(y))
    exact = len(y), act != 0, clamp >= 0, (noise.dtype, noise.shape) if noise is not None else None
    return _choose(
        y,
        kind,
        key,
        exact,
        lambda: launch.epilogue_gradient(*arguments, kind),
        lambda: reference.epilogue_gradient(*arguments),
    )


def _channels(inputs: int, outputs: int) -> str:
    return f"{inputs}->{outputs}"


def _size(size: int, padding: int) -> str:
    return f"{size}x{size}p{padding}"


def _pixels(x: Tensor) -> str:
    return f"{x.shape[2]}x{x.shape[3]}"
