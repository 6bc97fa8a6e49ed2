"""ReLU and leaky ReLU: y = max(x, 0) + slope min(x, 0), with second derivative nothing instead of zeros."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.ops._serves import serves

_leaky_relu = torch.ops.gan_fast.leaky_relu.default
_leaky_relu_ = torch.ops.gan_fast.leaky_relu_.default


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """`torch.nn.functional.leaky_relu` with a lean double backward, any shape, any order of gradient.

    A negative slope (whose sign cannot be read from the result) is torch's own function's.
    """
    if negative_slope < 0 or not serves(input):
        return F.leaky_relu(input, negative_slope, inplace)
    return (_leaky_relu_ if inplace else _leaky_relu)(input, float(negative_slope))


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """`torch.nn.functional.relu` with a lean double backward, any shape, any order of gradient."""
    if not serves(input):
        return F.relu(input, inplace)
    return (_leaky_relu_ if inplace else _leaky_relu)(input, 0.0)
