"""The strength of ADA, steered by how far the critic overfits:

    r = E sign D(x)  over the real images of a few steps;      p <- p + sign(r - target) images / speed

r is near 0 while the critic cannot tell real images from generated ones, and 1 when it knows every one of them.
Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 3 (target 0.6, p from
0 to 1 in 500 thousand images at the fastest).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class AdaptiveProbability:
    """Moves `p`, a 0-dim tensor such as `ADA.p`, in place, within [0, 1]; nothing is read back from the device.

    Args:
        p: what to move.
        target: of r.
        kimg: thousand images in which p could go from 0 to 1.
        interval: steps between two moves.

    `statistics` is r's numerator and denominator since the last move; `r` its value then. Under `torch.distributed`
    they are summed over ranks at a move, so all ranks must make the call and move alike.
    """

    def __init__(self, p: Tensor, *, target: float = 0.6, kimg: float = 500.0, interval: int = 4) -> None:
        if not kimg > 0 or interval < 1:
            raise ValueError(
                f"AdaptiveProbability got kimg={kimg} and interval={interval}, expected a positive number and at "
                "least 1"
            )
        self.p = p
        self.target, self.kimg, self.interval = target, kimg, interval
        self.statistics = torch.zeros(2, device=p.device)
        self.r = torch.zeros((), device=p.device)

    @torch.no_grad()
    def update(self, sign_mean: Tensor, count: int, step: int) -> None:
        """After step number `step`, from 1: `sign_mean`, 0-dim, of the logits of this rank's `count` real images."""
        self.statistics += torch.stack([sign_mean.to(self.p.dtype) * count, torch.full_like(self.p, count)])
        if step % self.interval:
            return
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(self.statistics)
        signs, images = self.statistics
        self.r.copy_(signs / images)
        self.p.add_(torch.sign(self.r - self.target) * images / (self.kimg * 1000)).clamp_(0, 1)
        self.statistics.zero_()
