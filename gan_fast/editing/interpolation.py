"""Walks through latent or style space, from each of a row of points to the next.

    linear       (1 - t) a + t b
    spherical    (sin((1 - t) v) a + sin(t v) b) / sin v      v: the angle between a and b

Latents of a normal distribution lie near a sphere, which the straight line between two of them leaves: its middle is
shorter than anything the generator was trained on. Styles have no such sphere. Source of the second: Shoemake,
"Animating Rotation with Quaternion Curves", 1985; for latents White, "Sampling Generative Networks", 2016.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["linear", "spherical"]

# Below this sine of the angle the two formulas agree to rounding.
_STRAIGHT = 1e-4


def walk(points: Tensor, frames: int, kind: Kind = "linear", loop: bool = False) -> Tensor:
    """Points on the way: `[F, *]` of key points `[K, *]`, every `frames`-th of them a key point itself.

    Args:
        points: key points, at least two; vectors along the last dimension.
        frames: steps from one to the next.
        kind: linear or spherical.
        loop: go on from the last to the first. F is K frames then, and the frame after the last is the first; without,
            it is (K - 1) frames + 1, and the last is the last key point.

    Raises:
        ValueError: fewer than two points, or frames below 1.
    """
    if points.dim() < 2 or len(points) < 2:
        raise ValueError(f"a walk needs two points or more, got {list(points.shape)}")
    if frames < 1:
        raise ValueError(f"frames must be 1 or more, got {frames}")
    ends = points.roll(-1, 0) if loop else points[1:]
    t = torch.arange(frames, dtype=points.dtype, device=points.device) / frames
    t = t.reshape(-1, *[1] * (points.dim() - 1))
    parts = [_between(a, b, t, kind) for a, b in zip(points, ends, strict=False)]
    return torch.cat(parts if loop else [*parts, points[-1:]])


def _between(a: Tensor, b: Tensor, t: Tensor, kind: Kind) -> Tensor:
    straight = (1 - t) * a + t * b
    if kind == "linear":
        return straight
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).unsqueeze(-1)
    angle = cosine.acos()
    sine = angle.sin()
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine.clamp_min(_STRAIGHT)
    return torch.where(sine < _STRAIGHT, straight, arc)
