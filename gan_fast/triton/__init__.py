"""Triton kernels for what is a matrix product on tensor cores: modulated convolution.

Nothing here imports Triton before a CUDA tensor needs it, so gan_fast works where there is none; `why_not` says why the
kernels cannot run.
"""

from __future__ import annotations

import functools
import importlib.util

import torch

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
