"""`ops.fma`: a b + c with broadcasting."""

from __future__ import annotations

import pytest
import torch

import gan_fast
from gan_fast import ops
from gan_fast.reference import fma as reference
from support.checks import check_derivatives
from support.reference_runner import agree
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import DTYPES

SHAPES = [((2, 3, 4, 5), (2, 3, 1, 1), (2, 1, 4, 5)), ((5,), (5,), (1,)), ((3, 1), (1, 4), (3, 4))]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_reference(dtype):
    for shapes in SHAPES:
        for layout in LAYOUTS[:-1]:
            tensors = [draw_values(s, "normal", i, dtype) for i, s in enumerate(shapes)]
            tensors[0] = lay_out(tensors[0], layout)
            size = max(float(t.abs().max()) for t in tensors)
            # torch sums a gradient to its shape in the dtype's own steps
            agree(
                ops.fma, reference.fma, tensors, kind="reduced", value_magnitude=size**2, output_dtype=dtype, factor=4
            )


def test_any_order_and_the_reference_mode():
    tensors = [torch.randn(s, dtype=torch.float64).requires_grad_() for s in SHAPES[0]]
    check_derivatives(ops.fma, tensors)
    assert ops.fma(torch.zeros(0, 2), torch.ones(2), torch.ones(1)).shape == (0, 2)
    with gan_fast.reference_mode():
        torch.testing.assert_close(ops.fma(*tensors), tensors[0] * tensors[1] + tensors[2])
