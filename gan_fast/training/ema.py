"""Exponential moving average of a network, the one that is sampled from:

    ema <- ema + (1 - beta) (network - ema),    beta = 2^(-batch / h),    h = min(half_life, ramp * images seen)

The half-life h counts images, so that the average means the same at any batch size; the ramp keeps the random first
weights from lingering. Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020, and its
published training settings (half-life 10 kimg, ramp 0.05).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Keeps `module`, the averaged copy of `network`, in evaluation mode.

    Floating-point buffers (the running statistics of batch normalisation) are averaged like parameters; counters are
    copied. `set_decay` is host arithmetic, `update` touches only device memory and can be part of a CUDA graph.
    """

    def __init__(self, network: nn.Module, half_life: float, ramp: float) -> None:
        self.module = copy.deepcopy(network).requires_grad_(False).eval()
        self.half_life = half_life
        self.ramp = ramp
        averaged, source, counters = [], [], []
        pairs = [
            *zip(self.module.parameters(), network.parameters(), strict=True),
            *zip(self.module.buffers(), network.buffers(), strict=False),
        ]
        for mine, theirs in pairs:
            if mine.is_floating_point():
                averaged.append(mine)
                source.append(theirs)
            else:
                counters.append((mine, theirs))
        self._averaged, self._source, self._counters = averaged, source, counters
        self._weight: Tensor = torch.ones((), device=averaged[0].device)

    def set_decay(self, images_seen: int, batch: int) -> None:
        """Set 1 - beta for a step of `batch` images that ends at `images_seen`."""
        half_life = min(self.half_life, self.ramp * images_seen) if self.ramp else self.half_life
        self._weight.fill_(1.0 if half_life <= 0 else 1.0 - 0.5 ** (batch / half_life))

    @torch.no_grad()
    def update(self) -> None:
        step = torch._foreach_sub(self._source, self._averaged)
        torch._foreach_mul_(step, self._weight)
        torch._foreach_add_(self._averaged, step)
        for mine, theirs in self._counters:
            mine.copy_(theirs)
