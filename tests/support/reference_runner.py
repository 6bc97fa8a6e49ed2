"""An op against the float64 truth: value, gradient, gradient of gradient, on poisoned memory.

For outputs y = f(x) and fixed cotangents c and directions v:

    value      y
    gradient   g   = d <c, y> / dx
    second     g'  = d <v, g> / d(x, c)      (both, because the backward op is differentiated in both)

`agree(candidate, truth, inputs)` runs the candidate in the inputs' own dtype and the truth on the same inputs in
float64, and compares the three. Cotangents and directions are multiples of 1/8 up to 2,
which every dtype holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from support.tolerances import Kind, assert_close

SECOND = 4.0
"""A second derivative is a few aten operations one after the other, each of which rounds to the dtype."""

Function = Callable[..., "Tensor | Sequence[Tensor]"]


@dataclass(frozen=True)
class Derivatives:
    """What one run returned; `second` holds the derivatives in the inputs, then those in the cotangents."""

    values: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    second: tuple[Tensor, ...]


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Every uninitialised allocation comes filled with NaN, so an output left unwritten shows."""
    was_on, was_warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    was_filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = was_filled
        torch.use_deterministic_algorithms(was_on, warn_only=was_warn_only)


def eighths(like: Tensor, seed: int) -> Tensor:
    """Non-zero multiples of 1/8 in [-2, 2], exact in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    magnitude = torch.randint(1, 17, like.shape, generator=generator) / 8.0
    sign = torch.randint(0, 2, like.shape, generator=generator) * 2 - 1
    return (magnitude * sign).to(like.device, like.dtype)


def derivatives(
    function: Function, inputs: Sequence[Tensor], *, second: bool = True, poisoned: bool = True
) -> Derivatives:
    """Runs `function` on leaves with the inputs' values and strides; inputs of integer dtype are passed through."""
    leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
    wanted = [x for x in leaves if x.requires_grad]
    with poisoned_memory() if poisoned else nullcontext():
        result = function(*leaves)
        values = (result,) if isinstance(result, Tensor) else tuple(result)
        cotangents = [eighths(y, seed).requires_grad_() for seed, y in enumerate(values)]
        gradients = torch.autograd.grad(values, wanted, cotangents, create_graph=second, allow_unused=True)
        gradients = tuple(torch.zeros_like(x) if g is None else g for x, g in zip(wanted, gradients, strict=True))
        again: tuple[Tensor, ...] = ()
        followed = [g for g in gradients if g.requires_grad]
        if second and followed:
            directions = [eighths(g, 100 + seed) for seed, g in enumerate(gradients) if g.requires_grad]
            by = [*wanted, *cotangents]
            found = torch.autograd.grad(followed, by, directions, allow_unused=True)
            again = tuple(torch.zeros_like(x) if g is None else g for x, g in zip(by, found, strict=True))
    return Derivatives(tuple(y.detach() for y in values), tuple(g.detach() for g in gradients), again)


def agree(
    candidate: Function,
    truth: Function,
    inputs: Sequence[Tensor],
    *,
    kind: Kind = "pointwise",
    value_magnitude: Tensor | float = 0.0,
    gradient_magnitude: Tensor | float | None = None,
    second: bool = True,
    output_dtype: torch.dtype | None = None,
    factor: float = 1.0,
) -> Derivatives:
    """Compares candidate and truth to second order and returns what the candidate gave.

    `value_magnitude` and `gradient_magnitude` are the magnitudes of `tolerances.assert_close`; without the latter each
    gradient is judged against its own largest element.
    """
    found = derivatives(candidate, inputs, second=second)
    exact = derivatives(truth, [x.detach().double() if x.is_floating_point() else x for x in inputs], second=second)
    assert len(found.values) == len(exact.values), f"{len(found.values)} outputs, expected {len(exact.values)}"
    for i, (got, expected) in enumerate(zip(found.values, exact.values, strict=True)):
        if output_dtype is not None:
            assert got.dtype == output_dtype, f"value {i} is {got.dtype}, expected {output_dtype}"
        assert_close(got, expected, kind=kind, magnitude=value_magnitude, what=f"value {i}", factor=factor)
    leaves = [x for x in inputs if x.is_floating_point()]
    for i, (got, expected) in enumerate(zip(found.gradients, exact.gradients, strict=True)):
        assert got.dtype == leaves[i].dtype, f"gradient {i} is {got.dtype}, its input {leaves[i].dtype}"
        scale = _largest(expected) if gradient_magnitude is None else gradient_magnitude
        assert_close(got, expected, kind=kind, magnitude=scale, what=f"gradient {i}", factor=factor)
    if not second:
        return found
    if not found.second or not exact.second:
        # A loss linear in its logits may have no graph to follow: then the other side's derivatives must be zero.
        for got in (*found.second, *exact.second)[: len(leaves)]:
            assert not bool(got.any()), "one side has a second derivative and the other has none"
        return found
    for i, (got, expected) in enumerate(zip(found.second, exact.second, strict=True)):
        scale = torch.maximum(_largest(expected), torch.as_tensor(gradient_magnitude or 0.0, dtype=torch.float64).max())
        assert_close(
            got, expected, kind="reduced", magnitude=scale, what=f"second derivative {i}", factor=SECOND * factor
        )
    return found


def _largest(x: Tensor) -> Tensor:
    finite = x.detach().abs().nan_to_num(0.0, 0.0, 0.0)
    return finite.max() if x.numel() else torch.zeros((), dtype=x.dtype)
