"""What is timed: a case is one job, its contenders are ways to do it, and all must agree before the clock starts.

A contender's function returns every tensor the job produces (loss, then gradients), so that work cannot be skipped.
`traffic` is what the job must move at the least: every input read once, every gradient written once. Time is also given
as a share of a plain copy that reads and writes as many bytes, measured in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Role = Literal["ours", "eager", "compiled", "copy"]
Job = Callable[[], Sequence[Tensor]]
COPY = "copy of as many bytes"


class WrongResult(RuntimeError):
    """A contender disagrees with the float64 truth: its time would mean nothing."""


@dataclass(frozen=True)
class Contender:
    """One way to do a case's job. The baselines of a ratio are the eager and the compiled ones."""

    name: str
    role: Role
    run: Job


@dataclass(frozen=True)
class Case:
    """One job of one size.

    `build(device)` makes inputs once and returns the contenders; `truth(device)` the expected tensors in float64 on the
    same inputs. `targets` maps a role to the least acceptable ratio (that role's fastest time over ours).
    """

    name: str
    group: str
    size: int
    traffic: int
    contenders: tuple[str, ...]
    build: Callable[[torch.device], Prepared]
    targets: dict[Role, float] = field(default_factory=dict)
    rtol: float = 1e-5


@dataclass(frozen=True)
class Prepared:
    """A case made ready on a device: contenders and the float64 truth they are held against."""

    contenders: tuple[Contender, ...]
    truth: tuple[Tensor, ...]


def check_agreement(case: Case, contender: Contender, truth: Sequence[Tensor]) -> None:
    """Raises `WrongResult` unless every tensor lies within `rtol` of the truth, measured by its largest element."""
    got = list(contender.run())
    if len(got) != len(truth):
        raise WrongResult(f"{case.name}: {contender.name} returned {len(got)} tensors, expected {len(truth)}")
    for i, (a, b) in enumerate(zip(got, truth, strict=True)):
        what = f"{case.name}: tensor {i} of {contender.name}"
        if a.shape != b.shape:
            raise WrongResult(f"{what} has shape {list(a.shape)}, expected {list(b.shape)}; not timed")
        error = float((a.detach().double() - b).abs().max())
        allowed = case.rtol * float(b.abs().max())
        if not error <= allowed:
            raise WrongResult(f"{what} is off by {error:.3g}, allowed {allowed:.3g}; not timed")


def prepare(case: Case, device: torch.device, *, copy: bool = True) -> list[Contender]:
    """Builds the case, checks every contender, and adds the copy of as many bytes."""
    prepared = case.build(device)
    names = tuple(c.name for c in prepared.contenders)
    if names != case.contenders:
        raise WrongResult(f"{case.name} built {names}, but announces {case.contenders}")
    for contender in prepared.contenders:
        check_agreement(case, contender, prepared.truth)
    return [*prepared.contenders, *([_copy(case.traffic, device)] if copy and case.traffic else [])]


def _copy(traffic: int, device: torch.device) -> Contender:
    source = torch.ones(max(traffic // 8, 1), device=device)
    target = torch.zeros_like(source)
    return Contender(COPY, "copy", lambda: [target.copy_(source)])


def all_cases() -> list[Case]:
    """Every case, smallest first within a group."""
    from gan_fast.bench import dcgan, drop_in, losses, penalties

    return [*losses.cases(), *drop_in.cases(), *penalties.cases(), *dcgan.cases()]
