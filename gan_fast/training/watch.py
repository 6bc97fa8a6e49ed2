"""Notices in words that a run goes wrong: samples grow alike, the critic wins for good, weights grow without end.

    diversity    1 / mean_ij exp(-|s_i - s_j|^2 / h^2) of N samples s, h a quarter of the root mean square distance
                 between real ones: how many of them differ. K equal modes far apart give K, copies of one sample 1.
    saturation   the critic's loss below 5 % of what guessing costs (all logits 0), or a generator gradient of next to
                 nothing beside its weights, for 500 steps on end
    growth       the norm of a network's weights at 20 times what it was

A low diversity counts once the samples had more before, or after enough images and a tenth of the run for them to have
it: every untrained generator makes one grey picture. Each kind is reported once an episode, which ends when its sign is
gone. The measure of diversity is the inverse of the mean similarity of two samples: Leinster and Cobbold, "Measuring
diversity: the importance of species similarity", 2012, of order 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan_fast.losses import AdversarialLoss
from gan_fast.training.journal import Reading
from gan_fast.training.techniques import LeCam

# Fewer samples say little about their variety; more cost more than they say.
_FEWEST, _MOST = 16, 500
# Measured over whole healthy runs (tests/training/test_watch.py): the least share of the real samples' diversity is
# above this from the given number of images on.
_LOW, _RECOVERED = 0.1, 0.2
_IMAGES_TO_VARIETY, _SHARE_TO_VARIETY = 100_000, 0.1
_SATURATED, _GRADIENT, _STEPS = 0.05, 1e-7, 500
_GROWTH = 20.0


class Alarm(NamedTuple):
    """kind: diversity, saturation or growth. message: for people. figures: the evidence."""

    kind: str
    message: str
    figures: dict[str, float]


def diversity(samples: Tensor, scale: float) -> float:
    """How many of `samples` `[N, ...]` differ, from 1 to N, where two at a distance of `scale` are nearly different."""
    flat = samples.detach().flatten(1).float()
    similarity = (
        torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").div_(scale).square_().neg_().exp_()
    )
    return 1 / float(similarity.mean())


def scale_of(real: Tensor) -> float:
    """A quarter of the root mean square distance between two real samples."""
    flat = real.detach().flatten(1).double()
    # E |a - b|^2 of two independent draws is twice the sum of variances.
    return math.sqrt(2 * float(flat.var(0, unbiased=False).sum())) / 4


def chance_loss(step: object) -> float | None:
    """The critic's loss where all logits are 0, of a step that has an adversarial loss."""
    loss = getattr(step, "loss", None)
    if isinstance(loss, LeCam):
        loss = loss.loss
    if not isinstance(loss, AdversarialLoss) or loss.reduction != "mean":
        return None
    return float(loss.discriminator(real=torch.zeros(1), fake=torch.zeros(1)))


def norm_of(tensors: Sequence[Tensor]) -> float:
    """The norm of all tensors as one vector."""
    return float(torch.stack(torch._foreach_norm([t.detach() for t in tensors])).float().norm())


def network_norm(network: nn.Module) -> float:
    return norm_of(list(network.parameters()))


class Watch:
    """Told of every reading and snapshot; answers with what there is to warn of.

    Args:
        chance: the critic's loss where all logits are 0, or None where the loss has no such level.
    """

    def __init__(self, chance: float | None) -> None:
        self.chance = chance if chance else None
        self._varied = False
        self._low_before = False
        self._since: dict[str, int] = {}
        self._first_norms: dict[str, float] = {}
        self._active: set[str] = set()

    def reading(self, reading: Reading, gradient: float | None, weights: float) -> list[Alarm]:
        """Of the losses, and the norms of the generator's gradient (None before the first) and of its weights."""
        won = self.chance is not None and reading.critic_loss < _SATURATED * self.chance
        still = gradient is not None and gradient < _GRADIENT * max(weights, 1e-12)
        found = []
        figures = {"critic_loss": reading.critic_loss, "chance_loss": self.chance or 0.0}
        figures |= {"real_sign_mean": reading.real_sign_mean, "fake_sign_mean": reading.fake_sign_mean}
        figures |= {"generator_gradient": gradient or 0.0, "generator_weights": weights}
        won_for_good, still_for_good = self._lasts("won", won, reading.step), self._lasts("still", still, reading.step)
        if won_for_good:
            message = (
                f"the critic wins: for {_STEPS} steps its loss is below {_SATURATED:.0%} of that of guessing "
                f"({reading.critic_loss:.3g} of {self.chance:.3g}), and such a critic teaches the generator nothing; "
                "try instance_noise, r1, label_smoothing or a lower lr_d"
            )
            found += self._once("saturation", True, message, figures)
        elif still_for_good:
            message = (
                f"the generator stands still: for {_STEPS} steps its gradient ({gradient:.3g}) is next to nothing "
                f"beside its weights ({weights:.3g}); try instance_noise, r1 or lower learning rates"
            )
            found += self._once("saturation", True, message, figures)
        elif not (won or still):
            self._active.discard("saturation")
        return found

    def snapshot(
        self, images: int, fraction: float, samples: Tensor, real: Tensor | None, norms: Mapping[str, float]
    ) -> tuple[list[Alarm], dict[str, float]]:
        """Of samples and real ones, `[N, ...]` on the CPU, and each network's norm; also the figures to be logged.

        fraction: how much of the run is done.
        """
        found: list[Alarm] = []
        figures: dict[str, float] = {}
        if real is not None and min(len(real), len(samples)) >= _FEWEST:
            count = min(len(real), len(samples), _MOST)
            scale = scale_of(real)
            if scale > 0:
                mine, theirs = diversity(samples[:count], scale), diversity(real[:count], scale)
                figures = {"diversity": mine, "real_diversity": theirs}
                grown_up = images >= _IMAGES_TO_VARIETY and fraction >= _SHARE_TO_VARIETY
                found += self._judge_diversity(grown_up, mine, theirs, count)
        for name, norm in norms.items():
            first = self._first_norms.setdefault(name, norm)
            message = (
                f"the {name}'s weights grow: their norm is {norm:.3g} and was {first:.3g}; the run may be about to "
                "blow up; try lower learning rates or r1"
            )
            grown = first > 0 and norm > _GROWTH * first
            found += self._once(f"growth of the {name}", grown, message, {"norm": norm, "first_norm": first})
        return found, figures

    def _judge_diversity(self, grown_up: bool, mine: float, theirs: float, count: int) -> list[Alarm]:
        share = (mine - 1) / max(theirs - 1, 1e-6)
        self._varied |= share >= _RECOVERED
        low = share < _LOW
        # One snapshot may be an accident of a moving average.
        lasts, self._low_before = low and self._low_before, low
        if share >= _RECOVERED:
            self._active.discard("diversity")
        message = (
            f"samples are alike: {count} of them count as {mine:.1f} that differ, {count} real ones as {theirs:.1f}; "
            "the generator has collapsed or is about to; try packing, minibatch_stddev, r1 or a lower lr_g"
        )
        figures = {"diversity": mine, "real_diversity": theirs, "samples": float(count)}
        due = lasts and (self._varied or grown_up)
        return self._once("diversity", True, message, figures) if due else []

    def _lasts(self, name: str, sign: bool, step: int) -> bool:
        if not sign:
            self._since.pop(name, None)
            return False
        return step - self._since.setdefault(name, step) >= _STEPS

    def _once(self, kind: str, sign: bool, message: str, figures: dict[str, float]) -> list[Alarm]:
        if not sign:
            self._active.discard(kind)
            return []
        if kind in self._active:
            return []
        self._active.add(kind)
        return [Alarm(kind, message, figures)]
