"""What is timed: a case is one job, its contenders are ways to do it, and all must agree before the clock starts.

A contender's function returns every tensor the job produces (loss, then gradients), so that work cannot be skipped.
`traffic` is what the job must move at the least: every input read once, every gradient written once. Time is also given
as a share of a plain copy that reads and writes as many bytes, measured in the same rounds. Of a job made of
convolutions these are counted instead, and the memory it needs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from gan_fast.bench.observe import observe

Role = Literal[
    "ours", "eager", "compiled", "copy", "separate", "no penalty", "reference", "wide reference", "bilinear", "other"
]
Job = Callable[[], Sequence[Tensor]]
COPY = "copy of as many bytes"


class WrongResult(RuntimeError):
    """A contender disagrees with the float64 truth: its time would mean nothing."""


@dataclass(frozen=True)
class Figures:
    """What is known of a contender besides its time; `passes` are convolution flops over those of one forward."""

    error: float | None = None
    convolutions: int | None = None
    passes: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Contender:
    """One way to do a case's job.

    The baselines of a ratio are the eager and the compiled ones; "separate" and "no penalty" are those of a critic step
    alone, "reference" is gan_fast's own plain PyTorch and "wide reference" that in float32 beside a bfloat16 job,
    "bilinear" torch's interpolation to the same size, and an "other" is timed for comparison. `check` takes the place
    of the comparison with the case's truth: it returns the error found, or raises `WrongResult`. A `slow` one takes
    minutes to be ready, and is left out of quick rounds.
    """

    name: str
    role: Role
    run: Job
    check: Callable[[], float] | None = None
    slow: bool = False
    figures: Figures = field(default_factory=Figures)


@dataclass(frozen=True)
class Case:
    """One job of one size.

    `build(device)` makes inputs once and returns the contenders; `truth(device)` the expected tensors in float64 on the
    same inputs. `targets` maps a role to the least acceptable ratio (that role's fastest time over ours), and
    `memory_target` is the largest acceptable ratio of our peak memory to the eager baseline's.
    """

    name: str
    group: str
    size: int
    traffic: int
    contenders: tuple[str, ...]
    build: Callable[[torch.device], Prepared]
    targets: dict[Role, float] = field(default_factory=dict)
    rtol: float = 1e-5
    memory_target: float | None = None
    least_rounds: int = 5
    quick: bool = True


@dataclass(frozen=True)
class Prepared:
    """A case made ready on a device: contenders and the float64 truth they are held against.

    With `one_pass`, a forward of the job's batch, convolutions and memory of every contender are observed.
    """

    contenders: tuple[Contender, ...]
    truth: tuple[Tensor, ...]
    one_pass: Callable[[], object] | None = None


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


def prepare(case: Case, device: torch.device, *, copy: bool = True, quick: bool = False) -> list[Contender]:
    """Builds the case, checks every contender, and adds the copy of as many bytes.

    `WrongResult` where one is wrong; a compiled baseline that is wrong is left out, with a warning.
    """
    prepared = case.build(device)
    names = tuple(c.name for c in prepared.contenders)
    if names != case.contenders:
        raise WrongResult(f"{case.name} built {names}, but announces {case.contenders}")
    chosen = []
    for contender in prepared.contenders:
        if quick and contender.slow:
            continue
        error = None
        try:
            if contender.check is not None:
                error = contender.check()
            else:
                check_agreement(case, contender, prepared.truth)
        except WrongResult as wrong:
            if contender.role != "compiled":
                raise
            # A compiler's fault is not ours, and must not keep us from being measured against the others.
            warnings.warn(f"{wrong}; the case goes on without it", stacklevel=2)
            continue
        chosen.append(replace(contender, figures=replace(contender.figures, error=error)))
    if prepared.one_pass is not None:
        pass_flops = observe(prepared.one_pass, device).flops
        chosen = [_observed(c, pass_flops, device) for c in chosen]
    return [*chosen, *([_copy(case.traffic, device)] if copy and case.traffic else [])]


def _observed(contender: Contender, pass_flops: float, device: torch.device) -> Contender:
    seen = observe(contender.run, device)
    passes = seen.flops / pass_flops
    figures = replace(contender.figures, convolutions=seen.convolutions, passes=passes, peak_bytes=seen.peak_bytes)
    return replace(contender, figures=figures)


def _copy(traffic: int, device: torch.device) -> Contender:
    source = torch.ones(max(traffic // 8, 1), device=device)
    target = torch.zeros_like(source)
    return Contender(COPY, "copy", lambda: [target.copy_(source)])


def all_cases() -> list[Case]:
    """Every case, smallest first within a group."""
    from gan_fast.bench import (
        bias_act,
        convolution,
        critic_step,
        cuda,
        dcgan,
        drop_in,
        filtered_lrelu,
        losses,
        modulated_conv2d,
        penalties,
        r3gan,
        stylegan2,
        upfirdn2d,
    )

    kinds = (
        losses,
        drop_in,
        penalties,
        bias_act,
        convolution,
        upfirdn2d,
        filtered_lrelu,
        modulated_conv2d,
        critic_step,
        dcgan,
        r3gan,
        stylegan2,
        cuda,
    )
    return [case for kind in kinds for case in kind.cases()]
