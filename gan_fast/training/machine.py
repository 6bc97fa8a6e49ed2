"""Device, precision and memory format for the machine at hand.

The rule, and the measurements it rests on (one whole DCGAN step, spectral norm, milliseconds of processor time on one
core of a CPU with AMX, torch 2.14; ratios are to fp32 in NCHW order):

    side, width, batch     fp32 NCHW   fp32 channels_last   bf16 NCHW   bf16 channels_last
     8,  32, 128               29.8         25.3  (1.2x)    20.8 (1.4x)     16.6  (1.8x)
    16,  32, 64                63.1         55.0  (1.1x)    40.7 (1.6x)     32.8  (1.9x)
    32,  32, 64               306.5        244.2  (1.3x)   146.3 (2.1x)    103.3  (3.0x)
    64,  64, 32               691.2        687.2  (1.0x)   398.3 (1.7x)    368.6  (1.9x)

So on a CPU: channels_last always, bf16 where the CPU multiplies bf16 tiles (AMX); elsewhere bf16 is emulated and loses.
On CUDA both follow what the tensor cores want: bf16 from compute capability 8.0, channels_last with it. Elsewhere fp32.
bf16 means autocast: weights, optimiser, average and losses stay in fp32.

Points are coordinates, not pixels: bf16's eight bits would blur them by more than the width of a mode, so they are
fp32 unless asked otherwise, and one has no channels to put last. So are waveforms, whose quiet parts lie far below
their loud ones; torch has no channels-last order for them.

CPU threads: up to a side of 16 the convolutions are so short that threads mostly wait for each other. One thread trains
the digits' 700 kimg in 95 seconds; two threads on cores that others used too fell to 8 steps in 10 seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ONE_THREAD_SIDE = 16


class Machine(NamedTuple):
    """Where and how the networks run."""

    device: torch.device
    precision: str
    channels_last: bool

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context the networks' forward passes run in."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        # A captured graph must not depend on casts of weights that were cached outside it.
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype, cache_enabled=False)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{name}, {self.precision}{', channels_last' if self.channels_last else ''}{threads}"


def has_bf16_tiles() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto`, or any torch device name; ValueError where it cannot be had."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:1 or another torch device, got {name!r}") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device is {name!r} but torch finds no CUDA device: use --device cpu or auto")
        index = local_rank if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise ValueError(f"device is {name!r} but there are {torch.cuda.device_count()} CUDA devices")
        device = torch.device("cuda", index)
    return device


@contextlib.contextmanager
def few_threads(device: torch.device, shape: tuple[int, ...]) -> Iterator[None]:
    """One CPU thread inside the block where samples are points or small images, torch's own choice otherwise."""
    before = torch.get_num_threads()
    if device.type == "cpu" and (len(shape) == 1 or shape[-1] <= ONE_THREAD_SIDE):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose(
    device: torch.device, precision: str = "auto", channels_last: bool | None = None, *, points: bool = False
) -> Machine:
    """Fill in what is `auto` or None by the rule above."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    fast_bf16 = (device.type == "cpu" and has_bf16_tiles()) or (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    )
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision fp16 is for CUDA devices, got {device}: use bf16 or fp32")
    if precision == "auto":
        precision = "bf16" if fast_bf16 and not points else "fp32"
    if points:
        channels_last = False
    if channels_last is None:
        channels_last = device.type == "cpu" or (device.type == "cuda" and precision == "bf16")
    return Machine(device, precision, channels_last)
