"""Distributions of points in the plane whose modes are known, drawn from a seed:

    x = c + sd e,    e ~ N(0, I),    c uniform over the centres of a mixture, or over the parameter of a curve

ring8       8 centres on a circle of radius 2, sd 0.02. Source: Metz et al., "Unrolled Generative Adversarial Networks",
            2017, section 3.1.
grid25      25 centres (-4 + 2i, -4 + 2j), sd 0.05. Source: Lin et al., "PacGAN", 2018, section 4.1 (after Srivastava
            et al., "VEEGAN", 2017).
swissroll   (t cos t, t sin t) / 7.5 with t uniform over [1.5 pi, 4.5 pi], sd 0.25 / 7.5: scikit-learn's swiss roll seen
            along its axis, at the scale of Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, figure 1.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

# A curve's modes are segments of equal probability; each holds so many anchors that the distance to the nearest one is
# the distance to the curve, up to a hundredth of sd.
_SEGMENTS = 32
_ANCHORS_PER_SEGMENT = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Toy:
    """A distribution of points.

    Attributes:
        name: what a person types.
        anchors: float32 `[A, 2]`, the points that noise is added to; of a curve a fine grid of them.
        modes: how many modes there are; anchors `A / modes * k` and following belong to mode k. All are equally likely.
        sd: of the noise, in each direction.
        parts: what the modes are called.
    """

    name: str
    anchors: Tensor
    modes: int
    sd: float
    parts: str = "modes"

    def draw(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Points float32 `[count, 2]` and the mode of each, int64 `[count]`."""
        stream = torch.Generator().manual_seed(seed)
        if self.name == "swissroll":
            u = torch.rand(count, generator=stream)
            centres, modes = _roll(u), (u * self.modes).long()
        else:
            modes = torch.randint(self.modes, (count,), generator=stream)
            centres = self.anchors[modes]
        return centres + self.sd * torch.randn(count, 2, generator=stream), modes


def _roll(u: Tensor) -> Tensor:
    """`[N, 2]` on the swiss roll for u in [0, 1)."""
    t = 1.5 * math.pi * (1 + 2 * u)
    return torch.stack([t * t.cos(), t * t.sin()], 1) / 7.5


def _ring8() -> Toy:
    angle = torch.arange(8) * (math.pi / 4)
    return Toy("ring8", 2 * torch.stack([angle.cos(), angle.sin()], 1), 8, 0.02)


def _grid25() -> Toy:
    side = torch.arange(-4.0, 5.0, 2.0)
    return Toy("grid25", torch.cartesian_prod(side, side), 25, 0.05)


def _swissroll() -> Toy:
    count = _SEGMENTS * _ANCHORS_PER_SEGMENT
    u = (torch.arange(count) + 0.5) / count
    return Toy("swissroll", _roll(u), _SEGMENTS, 0.25 / 7.5, parts="segments of the curve")


TOYS = {toy.name: toy for toy in (_ring8(), _grid25(), _swissroll())}
