"""Times the contenders of a case beside one another: in every round each runs once, in an order shuffled anew.

A fixed order shifts the smallest timings by a fifth (each contender inherits the caches of the one before it), and
times taken one contender after the other inherit the machine's mood. Reported are the median and the quartiles over
rounds; a ratio is the ratio of two medians of the same rounds.

A sample is a block of jobs of one contender, after which the device is waited for. On an accelerator one job and a wait
measure how long Python takes to the last launch and the card from there: the latency of a loop that nobody trains with,
since a training loop queues its work and the card is busy while Python goes on. There a sample queues at least 10 jobs
and about 20 ms of them (of jobs that take 20 ms and more, which fill a queue by themselves, as many as fit in 200 ms,
at least 2), for every contender alike. What it gives is the time for a job of the slower of the two, Python or card.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from gan_fast.bench.cases import Case, Contender, Figures, Role, prepare


@dataclass(frozen=True)
class Timing:
    """Seconds for one job: median and quartiles over `rounds` rounds of `repeats` jobs each."""

    name: str
    role: Role
    median: float
    q1: float
    q3: float
    rounds: int
    repeats: int
    figures: Figures = field(default_factory=Figures)


@dataclass(frozen=True)
class Measurement:
    """What one case gave."""

    case: Case
    timings: tuple[Timing, ...]

    def fastest(self, *roles: Role) -> Timing | None:
        """The contender of these roles with the smallest median."""
        found = [t for t in self.timings if t.role in roles]
        return min(found, key=lambda t: t.median) if found else None

    def ratio(self, *roles: Role) -> float | None:
        """How many times faster ours is than the fastest of these roles."""
        ours, other = self.fastest("ours"), self.fastest(*roles)
        return other.median / ours.median if ours and other else None

    def copy_share(self, timing: Timing) -> float | None:
        """As a share of the speed of a copy of as many bytes."""
        copy = self.fastest("copy")
        return copy.median / timing.median if copy else None

    def gigabytes_per_second(self, timing: Timing) -> float:
        """Necessary traffic over time."""
        return self.case.traffic / timing.median / 1e9

    def observed(self) -> tuple[Timing, ...]:
        """The contenders whose convolutions were counted."""
        return tuple(t for t in self.timings if t.figures.convolutions is not None)

    def missed_targets(self) -> list[str]:
        """One line for each target that this measurement misses."""
        missed = []
        for role, least in self.case.targets.items():
            ratio = self.ratio(role)
            if ratio is None or ratio < least:
                missed.append(f"{self.case.name}: {_against(role, ratio, least)}")
        if self.case.memory_target is not None:
            peaks = [t and t.figures.peak_bytes for t in (self.fastest("ours"), self.fastest("eager"))]
            ours, eager = peaks
            if not ours or not eager or ours > self.case.memory_target * eager:
                found = f"{ours / eager:.2f}" if ours and eager else "unknown"
                missed.append(
                    f"{self.case.name}: peak memory {found} of the fastest eager baseline's, target at most "
                    f"{self.case.memory_target:g}"
                )
        return missed


def _against(role: Role, ratio: float | None, least: float) -> str:
    if ratio is None:
        return f"nothing to compare with, target {least} times the fastest {role} baseline"
    if least < 1:
        return f"{1 / ratio:.2f} times as long as the fastest {role} baseline, target at most {1 / least:.2f}"
    return f"{ratio:.2f} times the fastest {role} baseline, target {least}"


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _time(contender: Contender, repeats: int, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        contender.run()
    _synchronise(device)
    return (time.perf_counter() - start) / repeats


def jobs_of_a_sample(seconds: float, device: torch.device) -> int:
    """How many jobs that take so long are timed together (see the module's docstring)."""
    seconds = max(seconds, 1e-7)
    if device.type == "cpu":  # about 2 ms of them, so that a contender's code is warm as in a loop alone
        return max(1, min(200, round(2e-3 / seconds)))
    return min(2000, max(math.ceil(20e-3 / seconds), min(10, int(0.2 / seconds)), 2))


def measure(
    case: Case,
    *,
    device: torch.device,
    rounds: int = 40,
    budget: float = 4.0,
    seed: int = 0,
    quick: bool = False,
) -> Measurement:
    """Checks agreement, warms up, and times the case for about `budget` seconds in at most `rounds` rounds.

    No case gets fewer than its `least_rounds`; with `quick` 5 are enough, and slow contenders are left out.

    Raises:
        WrongResult: a contender disagrees with the truth; nothing is timed.
    """
    contenders = prepare(case, device, quick=quick)
    first = {c.name: _time(c, 1, device) for c in contenders}
    few = 3 if device.type == "cpu" else 10  # a queue that has just begun to fill is slower than a full one
    calls = {name: 1 if seconds > 0.02 else few for name, seconds in first.items()}
    for contender in contenders:
        _time(contender, calls[contender.name], device)
    repeats = {c.name: jobs_of_a_sample(_time(c, calls[c.name], device), device) for c in contenders}
    per_round = sum(_time(c, repeats[c.name], device) * repeats[c.name] for c in contenders)
    rounds = max(5 if quick else case.least_rounds, min(rounds, int(budget / max(per_round, 1e-9))))
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    order = random.Random(seed)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffled = list(contenders)
            order.shuffle(shuffled)
            for contender in shuffled:
                samples[contender.name].append(_time(contender, repeats[contender.name], device))
    finally:
        if collecting:
            gc.enable()
    timings = tuple(_summary(contender, samples[contender.name], repeats[contender.name]) for contender in contenders)
    return Measurement(case, timings)


def _summary(contender: Contender, seconds: Sequence[float], repeats: int) -> Timing:
    q1, median, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(contender.name, contender.role, median, q1, q3, len(seconds), repeats, contender.figures)


def copy_bandwidth(device: torch.device, megabytes: int = 256) -> float:
    """GB/s, read and written together, of copying a float32 tensor far larger than any cache."""
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.zeros_like(source)
    copy = Contender("copy", "copy", lambda: [target.copy_(source)])
    jobs = jobs_of_a_sample(_time(copy, 2, device), device) if device.type != "cpu" else 1
    seconds = statistics.median(_time(copy, jobs, device) for _ in range(7))
    return 2 * source.nbytes / seconds / 1e9
