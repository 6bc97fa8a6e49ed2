"""The shared convolution, which is what the Triton kernels are measured against and what serves in their place."""

from __future__ import annotations

import pytest
import torch

from gan_fast.reference import modulated_convolution as reference
from gan_fast.triton import shared
from triton_kernels.cases import CASES, Case, compare, inputs


class Shared:
    """The three products there is another implementation of."""

    forward = staticmethod(shared.forward)
    input_gradient = staticmethod(shared.input_gradient)
    weight_gradient = staticmethod(shared.weight_gradient)
    epilogue_gradient = staticmethod(reference.epilogue_gradient)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shared_convolution_agrees_with_the_reference(case: Case, order: torch.memory_format) -> None:
    # in narrow types what the convolution gives is rounded too: three times half an ulp
    factor = 1.0 if case.dtype == "float32" else 1.5
    assert len(list(compare(case, Shared, inputs(case, order=order), factor))) == 8
