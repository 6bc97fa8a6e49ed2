"""Which tensors the lean ops serve: ordinary floating-point ones. Everything else is torch's own business."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gan_fast._modes import use_reference

_PLAIN = (Tensor, nn.Parameter)


def serves(*tensors: Tensor | None) -> bool:
    """Whether all are plain dense floating-point tensors and no transform or reference mode wants torch's functions."""
    if use_reference():
        return False
    for x in tensors:
        if x is None:
            continue
        # under the compiler tensors are of its own classes, and what is fake there is plain later
        if not (type(x) in _PLAIN or torch.compiler.is_compiling()):
            return False
        if not x.is_floating_point() or x.layout != torch.strided or x.is_nested:
            return False
    return True
