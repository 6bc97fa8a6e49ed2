"""What a plan must move and multiply, and the time that should take on an H100: a model to be confirmed or refuted.

    roofline   t_r = max(2 N P O I k^2 / peak,  bytes / bandwidth)       each tensor once through memory
    expected   t_e = max(t_tensor, t_l2, t_memory) / waves               what this kernel, so tiled, should take
    share      t_r / t_e

    t_tensor   products of whole tiles, borders included, at the sustained rate. Scaling the image operand is work of
               the ordinary units between two products: where one block has a multiprocessor to itself it is not hidden.
    t_l2       what all steps of all tiles read, at the bandwidth of the L2 cache
    t_memory   bytes at the bandwidth that a copy reaches
    waves      blocks a multiprocessor, as a share of the next whole number

Constants of an H100 SXM5 from NVIDIA's data sheet; those marked "assumed" are not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_fast.triton.ahead_of_time import Compiled
from gan_fast.triton.plans import Plan, cdiv

PEAK = {torch.bfloat16: 989.4e12, torch.float16: 989.4e12, torch.float32: 494.7e12}  # dense; float32 as tf32
MEMORY = 3.35e12  # bytes a second
PROCESSORS = 132
REGISTERS, SHARED_BYTES = 65_536, 227 * 1024  # of one multiprocessor
CLOCK = 1.83e9  # at which the peak is stated
SUSTAINED = 0.75  # assumed: share of the peak that a large product keeps, at the clock power allows
COPY_SHARE = 0.92  # assumed: share of the bandwidth that a copy reaches
L2 = 6.6e12  # assumed: bytes a second from the L2 cache to all multiprocessors
LANES = 128  # operations a clock of one multiprocessor's ordinary units
SCALING = 2.5  # assumed: instructions to widen, multiply and round one number


@dataclass(frozen=True)
class Estimate:
    """Seconds, bytes and ratios of one launch."""

    flops: float
    bytes: int
    outputs: int
    blocks: int
    resident: int
    tensor: float
    l2: float
    memory: float
    waves: float
    roofline: float

    @property
    def expected(self) -> float:
        return max(self.tensor, self.l2, self.memory) / self.waves

    @property
    def share(self) -> float:
        return self.roofline / self.expected

    @property
    def intensity(self) -> float:
        return self.flops / self.bytes

    @property
    def bound(self) -> str:
        times = {"tensor cores": self.tensor, "L2": self.l2, "memory": self.memory}
        return max(times, key=times.__getitem__)


def _bytes(*tensors: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def estimate(plan: Plan, done: Compiled) -> Estimate:
    """The model, for a plan and what it was compiled to."""
    a, tile = plan.arguments, plan.tile
    blocks = math.prod(plan.grid)
    threads = 32 * tile.warps
    resident = min(REGISTERS // (done.registers * threads), SHARED_BYTES // max(done.shared_bytes + 1024, 1), 16)
    filled = blocks / PROCESSORS
    waves = filled / math.ceil(filled)
    moved = _bytes(*(t for t in a.values() if isinstance(t, Tensor)))
    if plan.kernel == "epilogue_gradient":
        memory = moved / (MEMORY * COPY_SHARE)
        outputs = a["dz"].numel()
        return Estimate(8.0 * outputs, moved, outputs, blocks, resident, 0.0, 0.0, memory, 1.0, moved / MEMORY)
    image = a["x"]
    taps, peak, item = a["SIZE"] ** 2, PEAK[image.dtype], image.element_size()
    pixels = a["out_height"] * a["out_width"]
    samples = image.shape[0]
    flops = 2.0 * samples * pixels * a["channels"] * a["out_channels"] * taps
    if plan.kernel == "product":
        steps = float(cdiv(a["channels"], tile.k) * taps)
        outputs = a["y"].numel()
        # row n of what is scaled is read from registers, so a step's scaling comes before its product
        scaling = SCALING * tile.m * tile.k / LANES / CLOCK if a["load_scale"] is not None else 0.0
    else:
        steps = a["samples_a_split"] * cdiv(a["pixels_a_split"], tile.k)
        outputs = a["out"][0].numel()
        scaling = 0.0
        if len(a["out"]) > 1:  # partial sums are read again and the result is written
            moved += _bytes(a["out"]) + outputs * item
    step = 2.0 * tile.m * tile.n * tile.k / (peak / PROCESSORS * SUSTAINED)
    step = step + scaling if resident == 1 else max(step, scaling)
    return Estimate(
        flops=flops,
        bytes=moved,
        outputs=outputs,
        blocks=blocks,
        resident=resident,
        tensor=blocks * steps * step / PROCESSORS,
        l2=blocks * steps * (tile.m + tile.n) * tile.k * item / L2,
        memory=moved / (MEMORY * COPY_SHARE),
        waves=waves,
        roofline=max(flops / peak, moved / MEMORY),
    )
