"""Weight clipping: w <- min(max(w, -c), c). Source: Arjovsky, Chintala and Bottou 2017, algorithm 1."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def clip_weights_(critic: nn.Module, bound: float) -> None:
    """Clamp every floating-point parameter of `critic` to [-bound, bound], in place, after each critic step of a WGAN.

    Parameters may be of any shape, floating dtype and device, several at once; a dtype that cannot hold `bound` clamps
    to the value nearest to it (bfloat16 has 0.01001 for 0.01). Frozen parameters are clamped as well. Buffers, such as
    running statistics, stay as they are.

    A parametrized weight (`torch.nn.utils.parametrizations.spectral_norm`, `weight_norm`) is computed from other
    parameters: it is these originals that are clamped, so the weight itself is not bounded by `bound`. A spectrally
    normalised layer needs no clipping.

    Raises `ValueError` for a bound that is not positive and finite, and for a critic without floating-point parameters.
    Source: Arjovsky, Chintala and Bottou 2017, algorithm 1, with bound 0.01.
    """
    if not 0 < bound < math.inf:
        raise ValueError(f"clip_weights_ got bound={bound!r}, expected a positive number: WGAN's is 0.01")
    parameters: list[torch.Tensor] = [p for p in critic.parameters() if p.is_floating_point()]
    if not parameters:
        raise ValueError(
            f"clip_weights_ got a {type(critic).__name__} without floating-point parameters, so there is nothing to "
            "clip: pass the critic itself"
        )
    torch._foreach_clamp_min_(parameters, -bound)
    torch._foreach_clamp_max_(parameters, bound)
