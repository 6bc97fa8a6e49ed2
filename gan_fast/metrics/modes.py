"""How much of a toy distribution samples cover, from its known modes c_k and noise sd:

    within          a sample x with min_k |x - c_k| <= 3 sd; of real samples in the plane 1 - exp(-9/2) = 98.9 %
    caught          modes with at least 20 samples within 3 sd
    high quality    the share of samples within 3 sd of a mode
    spread          root mean square distance of those samples to c_k, in sd; of real ones 1.38
    KL              sum_k q_k log(K q_k), q the histogram of all samples by nearest mode, against uniform; nats

Of a curve the c are a fine grid of points on it and its K modes segments of equal probability. Sources: Srivastava et
al., "VEEGAN", 2017, section 4.1 (modes and high-quality samples, three standard deviations); Lin et al., "PacGAN", 2018
(KL).

Read the figures together: one sample a mode is nothing, 10,000 points of uniform noise leave some 10 within 3 sd of
each of grid25's modes; that noise has a KL of 0.06; and a generator that only knows the centres has 100 % within 3 sd
and no spread. So uniform noise and real samples stand beside the samples.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_fast.data import PointDataset, Toy

DEFAULT_POINTS = 10_000
FEWEST_OF_A_MODE = 20
DEVIATIONS = 3.0
_CHUNK = 2048


class ModeFigures(NamedTuple):
    """caught: of the modes. high_quality: share of the samples. spread: in sd, 0 without such samples. kl: in nats."""

    caught: int
    high_quality: float
    spread: float
    kl: float


@dataclasses.dataclass(frozen=True)
class ModeReport:
    """What `evaluate_points` found.

    Attributes:
        data: the distribution.
        samples: how many were judged.
        modes, parts: how many modes there are and what they are.
        figures, noise, real: of the samples, of as many uniform over the box of the real points, of as many real ones.
        rarest: share of the samples within 3 sd of the mode that has the fewest.
    """

    data: str
    samples: int
    modes: int
    parts: str
    figures: ModeFigures
    noise: ModeFigures
    real: ModeFigures
    rarest: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        plain = dataclasses.asdict(self)
        return plain | {name: getattr(self, name)._asdict() for name in ("figures", "noise", "real")}

    def lines(self) -> list[str]:
        """For people."""
        rows = [("samples", self.figures), ("uniform noise", self.noise), ("real", self.real)]
        head = f"{self.samples:,} samples against {self.data}: {self.modes} {self.parts}"
        return [
            f"{head}, caught from {FEWEST_OF_A_MODE} samples within {DEVIATIONS:.0f} sd",
            f"  {'':<14} caught   within {DEVIATIONS:.0f} sd   their spread   KL of modes to uniform",
            *(
                f"  {name:<14} {row.caught:3d}/{self.modes:<3d} {100 * row.high_quality:7.1f} %   {row.spread:8.2f} sd"
                f"   {row.kl:8.4f}"
                for name, row in rows
            ),
            f"  the rarest of the {self.modes} holds {100 * self.rarest:.2f} % of the samples",
        ]


def mode_figures(samples: Tensor, toy: Toy) -> ModeFigures:
    """The figures of samples `[N, 2]`, computed in float64."""
    return _figures(*_assign(samples, toy), toy.modes)


def evaluate_points(samples: Tensor, dataset: PointDataset, *, seed: int = 0) -> ModeReport:
    """Judge samples `[N, 2]` against the distribution of `dataset`; N = 10,000 is usual.

    Raises ValueError for samples of another shape or not finite, and for data whose modes are not known.
    """
    toy = dataset.toy
    if toy is None:
        raise ValueError(f"the modes of {dataset.name} are not known: only toy distributions can be judged by them")
    if samples.ndim != 2 or tuple(samples.shape[1:]) != dataset.shape or len(samples) < 2:
        raise ValueError(f"samples must be [N, {dataset.shape[0]}] with N >= 2; got {list(samples.shape)}")
    if not samples.isfinite().all():
        raise ValueError("samples must be finite; some are infinite or NaN")
    count = len(samples)
    low, high = dataset.points.aminmax(dim=0)
    stream = torch.Generator().manual_seed(seed)
    noise = low + (high - low) * torch.rand(count, len(low), generator=stream)
    # A draw that neither split has: both have small seeds.
    real, _ = toy.draw(count, seed=10_000 + seed)
    nearest, distance = _assign(samples, toy)
    within = nearest[distance <= DEVIATIONS]
    return ModeReport(
        data=dataset.name,
        samples=count,
        modes=toy.modes,
        parts=toy.parts,
        figures=_figures(nearest, distance, toy.modes),
        noise=mode_figures(noise, toy),
        real=mode_figures(real, toy),
        rarest=float(within.bincount(minlength=toy.modes).min()) / count,
    )


def _assign(samples: Tensor, toy: Toy) -> tuple[Tensor, Tensor]:
    """The nearest mode of each sample, int64 `[N]`, and the distance to it in sd, float64 `[N]`."""
    anchors = toy.anchors.double()
    modes, distances = [], []
    for part in samples.detach().cpu().double().split(_CHUNK):
        distance, anchor = torch.cdist(part, anchors, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        modes.append(anchor * toy.modes // len(anchors))
        distances.append(distance / toy.sd)
    return torch.cat(modes), torch.cat(distances)


def _figures(nearest: Tensor, distance: Tensor, modes: int) -> ModeFigures:
    within = distance <= DEVIATIONS
    caught = int((nearest[within].bincount(minlength=modes) >= FEWEST_OF_A_MODE).sum())
    spread = float(distance[within].square().mean().sqrt()) if within.any() else 0.0
    share = nearest.bincount(minlength=modes).double() / len(nearest)
    kl = torch.special.xlogy(share, share * modes).sum()
    return ModeFigures(caught, float(within.double().mean()), spread, float(kl))
