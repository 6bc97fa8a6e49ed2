"""Triton kernels for what is a matrix product on tensor cores: modulated convolution.

Nothing here imports Triton before a CUDA tensor needs it, so gan_fast works where there is none; `why_not` says why the
kernels cannot run.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

from gan_fast.triton import rule

FUSED = {"linear": 0, "relu": 1, "lrelu": 2}

# Tensor cores that take bfloat16 and tf32, and asynchronous copies to shared memory.
LEAST_CAPABILITY = (8, 0)


@functools.cache
def why_not(device: torch.device) -> str | None:
    """Why the Triton kernels cannot serve tensors of a device, or None where they can."""
    if device.type != "cuda":
        return f"they are for CUDA devices, not for {device.type}"
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if not torch.cuda.is_available():
        return "there is no card here"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return f"they need compute capability 8.0, and {torch.cuda.get_device_name(device)} has {capability}"
    return None


def serves(x: Tensor, weight: Tensor, padding: int | Sequence[int], act: str, alpha: float, gain: float) -> bool:
    """Whether `ops.modulated_conv2d` calls the op these kernels are behind, at stride 1, or composes it of others.

    The op: CUDA tensors in float32, bfloat16 or float16; kernels of 1x1 and 3x3 with equal padding on all sides;
    linear, relu and lrelu (slope at least 0) with a positive gain. Which implementation then runs each of its products
    is measured (`rule.py`). Up- and downsampling stay with the composition: a transposed or strided convolution and a
    filter.
    """
    if x.device.type != "cuda" or act not in FUSED or alpha < 0 or not gain > 0:
        return False
    size = weight.shape[2]
    return (
        size == weight.shape[3]
        and size in (1, 3)
        and isinstance(padding, int)
        and 0 <= padding < size
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        # a tracer is not to look at environment and driver: the op does, and may run the shared convolution too
        and (torch.compiler.is_compiling() or _ready(x.device))
    )


def _ready(device: torch.device) -> bool:
    return rule.mode() != "shared" and reason_said_once(device) is None


def reason_said_once(device: torch.device) -> str | None:
    """`why_not`, which is also said, once."""
    reason = why_not(device)
    if reason is not None:
        rule.say_once(
            f"gan_fast: the Triton kernels of modulated convolution cannot run: {reason}. The shared convolution "
            "between two elementwise passes serves instead"
        )
    return reason
