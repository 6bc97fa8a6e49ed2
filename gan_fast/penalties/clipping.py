"""Weight clipping: w <- min(max(w, -c), c). Source: Arjovsky, Chintala and Bottou 2017, algorithm 1."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def clip_weights_(critic: nn.Module, bound: float) -> None:
    """Clamp every parameter of `critic` to [-bound, bound], in place."""
    parameters = list(critic.parameters())
    torch._foreach_clamp_min_(parameters, -bound)
    torch._foreach_clamp_max_(parameters, bound)
