"""torch_utils.ops.bias_act: bias, activation, gain and clamp, by `gan_fast.ops.bias_act`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_fast import ops
from gan_fast.compat.nvlabs._impl import implementation

__all__ = ["_bias_act_ref", "_init", "activation_funcs", "bias_act"]


class Activation(dict[str, Any]):
    """A row of the table of activations: keys that are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _row(func: Any, alpha: float, gain: float, smooth: bool) -> Activation:
    return Activation(func=func, def_alpha=alpha, def_gain=gain, has_2nd_grad=smooth)


_ROOT_2 = 2.0**0.5

# Networks read `def_gain` from here, and forks call `func(x, alpha=...)`.
activation_funcs = {
    "linear": _row(lambda x, **_: x, 0, 1, False),
    "relu": _row(lambda x, **_: F.relu(x), 0, _ROOT_2, False),
    "lrelu": _row(lambda x, alpha, **_: F.leaky_relu(x, alpha), 0.2, _ROOT_2, False),
    "tanh": _row(lambda x, **_: torch.tanh(x), 0, 1, True),
    "sigmoid": _row(lambda x, **_: torch.sigmoid(x), 0, 1, True),
    "elu": _row(lambda x, **_: F.elu(x), 0, 1, True),
    "selu": _row(lambda x, **_: F.selu(x), 0, 1, True),
    "softplus": _row(lambda x, **_: F.softplus(x), 0, 1, True),
    "swish": _row(lambda x, **_: torch.sigmoid(x) * x, 0, _ROOT_2, True),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> Tensor:
    """`gan_fast.ops.bias_act`; a negative clamp is none. impl "ref" runs the plain PyTorch reference."""
    limit = clamp if clamp is not None and clamp >= 0 else None
    with implementation(impl):
        return ops.bias_act(x, b, dim, act, alpha, gain, limit)


def _bias_act_ref(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    return bias_act(x, b, dim, act, alpha, gain, clamp, impl="ref")


def _init() -> bool:
    """Training scripts call this to build the plugin before they start; there is none to build."""
    return True
