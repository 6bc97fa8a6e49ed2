"""`nn.Conv2d` by `gan_fast.ops.conv2d`, for 3x3 kernels at stride 1, which the CPU then does in fewer products."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast import ops


class Conv2d(nn.Conv2d):
    """As `nn.Conv2d` up to rounding: arguments, parameters and their names, beginnings, errors.

    `torch.export`, `torch.compile` and `torch.jit.trace` take it; `torch.jit.script` and FX's symbolic trace, which
    read Python, do not.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: int | str | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return ops.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)
