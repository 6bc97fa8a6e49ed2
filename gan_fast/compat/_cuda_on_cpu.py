"""`cuda_on_cpu()`: code that says "cuda" runs on the CPU, for scripts that leave no choice.

Every torch function called on this thread inside the block has its CUDA devices replaced by the CPU: `.to(device)`,
`torch.zeros(..., device="cuda")`, `.cuda()`, `module.to(device)`. The few functions of `torch.cuda` that training
scripts call for memory figures, timing and the current device answer as a machine with nothing on its card would.
`torch.cuda.is_available()` keeps telling the truth.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")
_CUDA_NAME = re.compile(r"cuda(:\d+)?")


class _OnCpu(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.cuda or func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.device:
            return _moved(func(*args, **(kwargs or {})))
        if func is torch.Tensor.to and len(args) > 1 and type(args[1]) is int:  # the number of a card
            args = (args[0], _CPU, *args[2:])
        given = {name: _moved(value) for name, value in (kwargs or {}).items()}
        if isinstance(given.get("device"), int):
            given["device"] = _CPU
        return func(*map(_moved, args), **given)


def _moved(value: Any) -> Any:
    if isinstance(value, torch.device):
        return _CPU if value.type == "cuda" else value
    if isinstance(value, str):
        return _CPU if _CUDA_NAME.fullmatch(value) else value
    return value


class _Event:
    """The wall clock in the place of `torch.cuda.Event`: on the CPU, work is done when the call returns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.time = 0.0

    def record(self, stream: Any = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        """Nothing runs behind."""

    def elapsed_time(self, end: _Event) -> float:
        return (end.time - self.time) * 1e3


def _answering(value: int | None) -> Callable[..., int | None]:
    """A function of its own for each name: torch's compiler keeps a table of these functions and allows no double."""

    def answer(*args: Any, **kwargs: Any) -> int | None:
        return value

    return answer


_NOTHING = ("current_stream", "empty_cache", "reset_peak_memory_stats", "set_device", "synchronize")
_ZERO = ("current_device", "max_memory_allocated", "max_memory_reserved", "memory_allocated")
_STAND_INS: dict[str, Any] = {
    "Event": _Event,
    **{name: _answering(None) for name in _NOTHING},
    **{name: _answering(0) for name in _ZERO},
}


@contextlib.contextmanager
def cuda_on_cpu() -> Iterator[None]:
    """Run what is meant for CUDA on the CPU, on this thread, inside the block."""
    before = {name: getattr(torch.cuda, name) for name in _STAND_INS}
    for name, stand_in in _STAND_INS.items():
        setattr(torch.cuda, name, stand_in)
    try:
        with _OnCpu():
            yield
    finally:
        for name, value in before.items():
            setattr(torch.cuda, name, value)
