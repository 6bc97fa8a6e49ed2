"""What a job's convolutions alone take: they are written down while it runs once, and run again with nothing between.

Every product, forward, input gradient and weight gradient, on tensors of the same shape, memory order and dtype. The
time is a floor for whatever else is done around the same products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_OURS = torch.ops.gan_fast
# With the arguments that are no part of the product, and what they are without it.
PRODUCTS: dict[Callable[..., Any], dict[int, Any]] = {
    torch.ops.aten.convolution.default: {},
    torch.ops.aten.convolution_backward.default: {},
    _OURS.convolution.default: {},
    _OURS.convolution_input_gradient.default: {},
    _OURS.convolution_weight_gradient.default: {},
    # s, d, noise, bias, then act, alpha, gain, clamp
    _OURS.modulated_convolution.default: {2: None, 3: None, 4: None, 5: None, 7: 0, 8: 0.0, 9: 1.0, 10: -1.0},
    _OURS.modulated_convolution_input_gradient.default: {2: None, 3: None, 4: None},
    _OURS.modulated_convolution_weight_gradient.default: {2: None, 3: None},
}


class _Record(TorchDispatchMode):
    """Keeps each product's arguments, with a stand-in for every tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], list[Any]]] = []
        self.tensors: dict[tuple[Any, ...], Tensor] = {}

    def _stand_in(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        key = (tuple(x.shape), x.stride(), x.dtype)
        if key not in self.tensors:
            empty = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
            self.tensors[key] = empty.normal_()
        return self.tensors[key]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in PRODUCTS:
            bare = [PRODUCTS[func].get(i, x) for i, x in enumerate(args)]
            self.calls.append((func, [self._stand_in(x) for x in bare]))
        return func(*args, **(kwargs or {}))


def convolutions_alone(job: Callable[[], Any]) -> Callable[[], Sequence[Tensor]]:
    """Runs the job once; the result runs its convolutions."""
    with _Record() as record:
        job()

    def run() -> Sequence[Tensor]:
        with torch.no_grad():
            for function, arguments in record.calls:
                function(*arguments)
        return []

    return run
