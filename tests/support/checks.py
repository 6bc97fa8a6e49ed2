"""Checks that every differentiable op passes: numerical first and second derivatives, registration, repeatability."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from support.tolerances import assert_bitwise_equal


def check_derivatives(function: Callable[..., Any], inputs: Sequence[Any], *, second: bool = True) -> None:
    """gradcheck, and gradgradcheck with random cotangents, in float64, of every input that requires grad."""
    for x in inputs:
        assert not isinstance(x, Tensor) or not x.requires_grad or x.dtype == torch.float64, (
            "numerical derivatives need float64"
        )
    assert torch.autograd.gradcheck(function, tuple(inputs))
    if second:
        assert torch.autograd.gradgradcheck(function, tuple(inputs), gen_non_contig_grad_outputs=True)


def check_op(op: Any, samples: Sequence[tuple[Any, ...]]) -> None:
    """`torch.library.opcheck` (schema, autograd registration, fake kernel, dynamic shapes) on every sample's arguments.

    opcheck looks at first order only: pair it with `check_derivatives`.
    """
    for arguments in samples:
        outcome = torch.library.opcheck(op, arguments)
        wrong = {test: result for test, result in outcome.items() if result != "SUCCESS"}
        assert not wrong, f"{op}: {wrong}"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Runs the block on `count` intra-op threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_bitwise_repeatable(
    function: Callable[[], Sequence[Tensor]], *, counts: Sequence[int] = (1, 2, 3, 4, 1)
) -> None:
    """The same bits on every run and on every number of threads."""
    first: Sequence[Tensor] | None = None
    for count in counts:
        with threads(count):
            results = [x.detach().clone() for x in function()]
        if first is None:
            first = results
        for i, (a, b) in enumerate(zip(first, results, strict=True)):
            assert_bitwise_equal(a, b, f"output {i} on {counts[0]} and on {count} threads")
