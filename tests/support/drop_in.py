"""A drop-in beside the torch function it replaces: same values, same dtypes, same gradients, same errors.

In float32 and float64 "same" is 8 eps of the magnitude, the last few ulps of two orders of summation. In half precision
torch rounds after every step, so both are judged by the float64 truth: ours may not be further from it than the table
allows, nor than torch is.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from support.reference_runner import derivatives
from support.tolerances import TABLE, assert_close

ULPS = 8.0


def same_values(
    ours: Callable[..., Tensor],
    theirs: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *,
    magnitude: Tensor | float = 0.0,
    gradient_magnitude: float = 0.0,
    second: bool = True,
) -> None:
    """Value, gradient and gradient of gradient of both on the same inputs, their shapes and dtypes too."""
    found, expected = (derivatives(f, inputs, second=second, poisoned=f is ours) for f in (ours, theirs))
    wide = [x.detach().double() if x.is_floating_point() else x for x in inputs]
    exact = derivatives(theirs, wide, second=second)
    for what, scale in (("values", magnitude), ("gradients", gradient_magnitude), ("second", gradient_magnitude)):
        triples = list(zip(getattr(found, what), getattr(expected, what), getattr(exact, what), strict=True))
        for i, (a, b, c) in enumerate(triples):
            assert a.dtype == b.dtype and a.shape == b.shape, (
                f"{what} {i}: {a.dtype} {a.shape}, torch's {b.dtype} {b.shape}"
            )
            largest = b.double().abs().nan_to_num(0, 0, 0).max() if b.numel() else 0.0
            size = torch.as_tensor(scale, dtype=torch.float64).to(b.device)
            size = torch.maximum(size, torch.as_tensor(largest, dtype=torch.float64)) if what != "values" else size
            if a.dtype in (torch.float32, torch.float64):
                factor = ULPS / (TABLE[a.dtype].pointwise) * (2 if what == "second" else 1)
                assert_close(a, b.double(), magnitude=size.cpu(), what=f"{what} {i} against torch", factor=factor)
            else:
                off = (b.double() - c).abs().nan_to_num(0, 0, 0).max() if b.numel() else torch.zeros(())
                size = torch.maximum(size, 1.01 * off.double() / torch.finfo(a.dtype).eps)
                assert_close(a, c, magnitude=size.cpu(), what=f"{what} {i} against float64")


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, Any]:
    """("returned", value) or ("raised", (type, message)); caught is only what torch itself raises for bad arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return "returned", function(*args, **kwargs)
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            return "raised", (type(error), str(error))


def _is_about_broadcasting(message: str) -> bool:
    return "must match" in message or "broadcast" in message


def same_outcome(ours: Callable[..., Any], theirs: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Both return the same tensor, or both raise the same error in the same words.

    Where torch's words are those of its broadcasting machinery, the sizes it names are enough.
    """
    expected, got = outcome(theirs, *args, **kwargs), outcome(ours, *args, **kwargs)
    assert got[0] == expected[0], f"ours {got}, torch {expected}"
    if expected[0] == "raised" and _is_about_broadcasting(expected[1][1]):
        sizes = re.findall(r"length (\d+)|\((\d+)\)", expected[1][1])
        named = {size for pair in sizes for size in pair if size}
        assert got[1][0] is expected[1][0] and all(size in got[1][1] for size in named), f"ours {got}, torch {expected}"
        return
    if expected[0] == "raised":
        assert got[1][0] is expected[1][0], f"ours raised {got[1]}, torch {expected[1]}"
        assert got[1][1].splitlines()[0] == expected[1][1].splitlines()[0], (
            f"ours said {got[1][1]}\ntorch {expected[1][1]}"
        )
        return
    a, b = got[1], expected[1]
    assert a.dtype == b.dtype and a.shape == b.shape and a.device == b.device, (
        f"{a.dtype} {a.shape}, torch's {b.dtype} {b.shape}"
    )
    if b.is_floating_point() and b.numel():
        floating = [x.dtype for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
        # torch computes part of a mixed call in the narrower dtype before it promotes.
        coarsest = max(torch.finfo(dtype).eps for dtype in [b.dtype, *floating]) / torch.finfo(b.dtype).eps
        factor = coarsest * (ULPS / TABLE[b.dtype].pointwise if b.dtype in (torch.float32, torch.float64) else 8.0)
        largest = b.detach().double().abs().nan_to_num(0, 0, 0).max()
        # where dtypes are mixed, torch computes parts of the formula in the narrower one
        given = [x.dtype for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
        widened = max(torch.finfo(t).eps for t in [b.dtype, *given]) / torch.finfo(b.dtype).eps
        assert_close(a, b.detach().double(), magnitude=largest.cpu(), factor=factor * widened)
