"""What a job does besides taking time: its convolutions, counted and weighed, and the most memory it holds at once.

    convolutions    products executed; `aten::convolution_backward` with both gradients wanted is two
    flops           2 N (C_out / g) (C_in / g) g |kernel| |output| each, of zeros too: over a forward's, the passes
    peak bytes      the largest sum of what was allocated less what was freed since the job began

All of it is read from one run under torch.profiler: operator events with their shapes, and the record of PyTorch's
allocator, which gives tensors their memory. What oneDNN takes elsewhere inside a convolution is not in the peak, nor
what Winograd's convolutions keep between calls: the peaks of contenders that convolve by different kernels say little.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Observation:
    """Of one run of a job."""

    convolutions: int
    flops: float
    peak_bytes: int


def observe(job: Callable[[], Any], device: torch.device) -> Observation:
    """Runs the job twice: once so that nothing is first, once under the profiler."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "7")  # the profiler's notes to its developers, two lines a run
    job()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, profile_memory=True, acc_events=True) as seen:
        job()
    events = seen.profiler.kineto_results.events()
    products = [p for e in events for p in _products(e.name(), e.shapes(), e.concrete_inputs())]
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        peak = _peak(sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"))
    return Observation(len(products), sum(products), peak)


def _peak(changes: Sequence[tuple[int, int]]) -> int:
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def _products(name: str, shapes: Sequence[Sequence[int]], values: Sequence[Any]) -> list[float]:
    """The flops of each product that an event stands for; events that call another of these are not counted."""
    if name == "aten::convolution":
        x, w = shapes[:2]
        stride, padding, dilation, transposed, _, _ = values[3:9]
        return [_flops(x, _output(x, w, stride, padding, dilation), w, transposed)]
    if name == "mkldnn::_convolution_pointwise":  # what torch.compile makes of a forward
        x, w = shapes[:2]
        padding, stride, dilation = values[3:6]
        return [_flops(x, _output(x, w, stride, padding, dilation), w, False)]
    if name == "aten::convolution_backward":
        dy, x, w = shapes[:3]
        transposed, wanted = values[7], values[10]
        return [_flops(x, dy, w, transposed)] * sum(wanted[:2])
    if name == "gan_fast::winograd":  # the operations of the sum that it stands for, not the fewer that it does
        return [float(values[0])]
    return []


def _flops(x: Sequence[int], y: Sequence[int], w: Sequence[int], transposed: bool) -> float:
    """Every element of y, or of x where transposed, meets one filter's weights."""
    return 2.0 * math.prod(x if transposed else y) * math.prod(w[1:])


def _output(x: Sequence[int], w: Sequence[int], stride: Any, padding: Any, dilation: Any) -> list[int]:
    geometry = zip(x[2:], w[2:], stride, padding, dilation, strict=True)
    return [x[0], w[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in geometry)]
