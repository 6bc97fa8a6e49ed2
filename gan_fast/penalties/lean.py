"""`fast_double_backward`: torch's layers replaced by `gan_fast.ops`, in code that is already written.

    with penalties.fast_double_backward():
        logits = critic(images)
    (g,) = torch.autograd.grad(logits.sum(), images, create_graph=True)

Values and gradients stay the same, up to rounding; the second order is lean: see `gan_fast.ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from gan_fast import ops

_Function = Callable[..., Any]


def _relu_in_place(input: torch.Tensor) -> torch.Tensor:
    return ops.relu(input, inplace=True)


def _leaky_relu_in_place(input: torch.Tensor, negative_slope: float = 0.01) -> torch.Tensor:
    return ops.leaky_relu(input, negative_slope, inplace=True)


REPLACED: dict[_Function, _Function] = {
    torch.conv1d: ops.conv1d,
    torch.conv2d: ops.conv2d,
    torch.conv3d: ops.conv3d,
    torch.conv_transpose1d: ops.conv_transpose1d,
    torch.conv_transpose2d: ops.conv_transpose2d,
    torch.conv_transpose3d: ops.conv_transpose3d,
    F.linear: ops.linear,
    F.relu: ops.relu,
    torch.relu: ops.relu,
    torch.Tensor.relu: ops.relu,
    torch.relu_: _relu_in_place,
    torch.Tensor.relu_: _relu_in_place,
    F.leaky_relu: ops.leaky_relu,
    F.leaky_relu_: _leaky_relu_in_place,
    F.avg_pool1d: ops.avg_pool1d,
    F.avg_pool2d: ops.avg_pool2d,
    # the functions that return indices too and those that do not: torch dispatches to one of the two
    F.max_pool1d: ops.max_pool1d,
    F.max_pool2d: ops.max_pool2d,
    torch.max_pool1d: ops.max_pool1d,
    torch.max_pool2d: ops.max_pool2d,
    F.adaptive_avg_pool1d: ops.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d: ops.adaptive_avg_pool2d,
}


class Lean(TorchFunctionMode):
    """Runs `REPLACED` functions on `gan_fast.ops`."""

    def __torch_function__(
        self, func: _Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return REPLACED.get(func, func)(*args, **(kwargs or {}))


def gradients(
    outputs: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor | GradientEdge],
    cotangents: Sequence[torch.Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = True,
) -> tuple[torch.Tensor | None, ...]:
    """`torch.autograd.grad`, with the modes that are on now: given tensors, it would switch a `Lean` off meanwhile.

    A checkpointed critic runs its forward again in there, and must run the same functions.
    """
    return torch.autograd.grad(
        [get_gradient_edge(x) for x in outputs],
        [get_gradient_edge(x) if isinstance(x, torch.Tensor) else x for x in inputs],
        cotangents,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=allow_unused,
    )


class fast_double_backward:
    """Run convolutions, linear layers, ReLU, leaky ReLU and pooling on `gan_fast.ops` inside the block.

    For code with an R1, R2 or gradient penalty of its own: nothing else changes. The forward pass must run inside;
    the backward passes may run anywhere. Values and first gradients are bit for bit what they were (up to rounding
    where `ops.conv2d` runs 3x3 kernels by Winograd's), in-place activations included, and any order of gradient is
    right. What it saves: grouped convolutions are not taken apart in the double backward, nothing is convolved with
    zeros, and no weight gradient is computed that was not asked for.
    A parameter on which a penalty does not depend, such as a bias below a leaky ReLU, gets no gradient from it, where
    torch gives it zeros.

    Not for layers under `torch.utils.checkpoint`, which run again in the backward, where the block does not reach.
    Applies to this thread; blocks may be nested and an instance used again. `gan_fast.reference_mode()`, `torch.func`
    transforms and forward-mode AD run torch's own functions, as do layers called from C++.
    """

    def __init__(self) -> None:
        self._entered: list[Lean] = []

    def __enter__(self) -> None:
        mode = Lean()
        mode.__enter__()
        self._entered.append(mode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)
