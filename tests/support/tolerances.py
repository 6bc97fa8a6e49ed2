"""How far a result may lie from the float64 truth:  |got - truth| <= k eps(dtype) max(|truth|, magnitude) + floor.

The truth gets the inputs exactly as the kernel sees them (already rounded to its dtype), so the bounds cover the
arithmetic alone. `magnitude` is what the result was summed from: the sum of absolute terms for a reduction, the largest
contribution for a difference. Without it a sum that cancels to zero could not be judged.

| dtype | k pointwise | k reduced | why |
|---|---|---|---|
| float64, float32 | 16 | 64 | exp, log1p and a division of 1 to 4 ulp each, at most four deep; a sum in blocks |
| | | | loses about log2(count) half-ulps more, and twice that where two sums are added |
| float16, bfloat16 | 1 | 1 | computed in float32 and rounded once: half an ulp, eps/2, and room for a tie |

`floor` is where the dtype's relative precision ends: gradual underflow in float16 (a mean's gradient 1/61504 is
subnormal there), flush to zero elsewhere (a vectorised exp may return 0 below the smallest normal number).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["pointwise", "reduced"]


@dataclass(frozen=True)
class Bound:
    """Allowed error in units of the dtype's eps, and the absolute floor under it."""

    pointwise: float
    reduced: float
    floor: float


TABLE: dict[torch.dtype, Bound] = {
    torch.float64: Bound(pointwise=16.0, reduced=64.0, floor=torch.finfo(torch.float64).smallest_normal),
    torch.float32: Bound(pointwise=16.0, reduced=64.0, floor=torch.finfo(torch.float32).smallest_normal),
    torch.float16: Bound(pointwise=1.0, reduced=1.0, floor=2.0**-24),
    torch.bfloat16: Bound(pointwise=1.0, reduced=1.0, floor=torch.finfo(torch.bfloat16).smallest_normal),
}

DTYPES = tuple(TABLE)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Where sums of `dtype` are kept, and the dtype of a reduced adversarial loss: float32 for half precision."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def assert_close(
    got: Tensor,
    truth: Tensor,
    *,
    kind: Kind = "pointwise",
    magnitude: Tensor | float = 0.0,
    what: str = "result",
    factor: float = 1.0,
) -> None:
    """Fails unless `got` lies within `factor` times the table's bound of the float64 `truth`, NaN and inf included."""
    assert got.shape == truth.shape, f"{what}: shape {list(got.shape)}, expected {list(truth.shape)}"
    bound, eps = TABLE[got.dtype], torch.finfo(got.dtype).eps
    exact = truth.detach().to("cpu", torch.float64)
    found = got.detach().to("cpu", torch.float64)
    rounded = exact.to(got.dtype).double()  # overflows to inf where the dtype does
    same_class = (found.isnan() == rounded.isnan()) & (found.isinf() == rounded.isinf())
    same_class &= ~found.isinf() | (found == rounded)
    _report(~same_class, found, exact, f"{what}: NaN or inf in the wrong place")
    if not isinstance(magnitude, Tensor):
        magnitude = torch.tensor(float(magnitude), dtype=torch.float64)
    scale = torch.maximum(exact.abs(), magnitude.detach().to("cpu", torch.float64).expand_as(exact))
    allowed = factor * getattr(bound, kind) * eps * scale + bound.floor
    error = (found - exact).abs()
    finite = found.isfinite() & exact.isfinite()
    _report(finite & ~(error <= allowed), found, exact, f"{what} ({got.dtype}): further than {allowed.max():.3g}")


def _report(wrong: Tensor, found: Tensor, exact: Tensor, message: str) -> None:
    if not bool(wrong.any()):
        return
    error = torch.where(wrong, (found - exact).abs().nan_to_num(torch.inf), -torch.ones_like(exact))
    worst = int(error.argmax())
    raise AssertionError(
        f"{message} in {int(wrong.sum())} of {wrong.numel()} places; worst at flat index {worst}: "
        f"got {found.flatten()[worst]:.17g}, truth {exact.flatten()[worst]:.17g}"
    )


def assert_bitwise_equal(a: Tensor, b: Tensor, what: str = "results") -> None:
    """Equal to the last bit, with NaN equal to NaN."""
    assert a.dtype == b.dtype and a.shape == b.shape, f"{what}: {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
    same = (a == b) | (a.isnan() & b.isnan())
    assert bool(same.all()), f"{what} differ in {int((~same).sum())} of {same.numel()} places"
