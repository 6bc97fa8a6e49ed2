"""Gradients averaged over processes in one flat all-reduce: DDP's hooks do not survive a double backward."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], group: Any = None) -> None:
    """Replace every `.grad` by its mean over the processes of `group`, by default all."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat, group=group)
    flat /= dist.get_world_size(group)
    pieces = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [piece.view(g.shape) for piece, g in zip(pieces, gradients, strict=True)])
