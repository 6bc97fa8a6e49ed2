"""y = clamp(gain act(x scale + noise + b)) in one pass over memory, and each of its gradients in one.

Source: the interface and the table of activations of NVIDIA's StyleGAN code bases (facts; no code of theirs), and
calculus: `gan_fast/reference/bias_act.py` has the formulas.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast._modes import use_reference
from gan_fast.reference import bias_act as reference
from gan_fast.reference.bias_act import ACTIVATIONS

_bias_act = torch.ops.gan_fast.bias_act.default


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    *,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Scale, noise, bias, activation, gain and clamp, fused: y = clamp(gain act(x scale + noise + b)).

    Args:
        x: any shape of at least one dimension; float64, float32, bfloat16 or float16.
        b: bias `[C]` along `dim` of x.
        dim: the dimension of x that b goes along; negative counts from the end.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        alpha: slope of lrelu below zero, 0.2 by default; the other activations do not read it.
        gain: factor after the activation; by default sqrt(2) for relu, lrelu and swish, 1 for the others.
        clamp: y is limited to [-clamp, clamp]; None or a negative number: no limit.
        scale: `[N, C]`, a factor for each sample and channel of x `[N, C, ...]`; needs dim 1.
        noise: `[N, 1, H, W]`, `[1, 1, H, W]` or `[H, W]` for x `[N, C, H, W]` (or as many spatial dimensions as x has),
            the same for all channels; needs dim 1.

    Returns:
        y in the shape, dtype and memory order of x. b, scale and noise may be of other floating-point dtypes; the
        arithmetic is float32 (float64 for float64) and rounds once, at the end.

    Differentiable to any order in x, b, scale and noise, each gradient in its input's dtype; at a kink the derivative
    from below counts, at the clamp it is 0. linear, relu and lrelu keep only the result for backward (x too where the
    scale needs a gradient), the smooth activations keep x.

    Raises:
        ValueError: an unknown activation; shapes that do not fit.
        TypeError: a dtype other than the four.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"bias_act got act={act!r}; expected one of {', '.join(ACTIVATIONS)}")
    entry = ACTIVATIONS[act]
    numbers = (
        entry.alpha if alpha is None else float(alpha),
        entry.gain if gain is None else float(gain),
        -1.0 if clamp is None else float(clamp),
    )
    if use_reference():
        _check(x, b, scale, noise, dim)
        return reference.bias_act(x, b, scale, noise, dim % x.dim(), entry.code, *numbers)
    return _bias_act(x, b, scale, noise, dim, entry.code, *numbers)


def _check(x: Tensor, b: Tensor | None, scale: Tensor | None, noise: Tensor | None, dim: int) -> None:
    """What the op checks, in its words."""
    shape = list(x.shape)
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"bias_act got dim {dim} for x of shape {shape}; expected a dimension that x has")
    if b is not None and list(b.shape) != [shape[dim]]:
        raise ValueError(
            f"bias_act got b of shape {list(b.shape)}; expected [{shape[dim]}], the size of dim {dim} of x {shape}"
        )
    if (scale is not None or noise is not None) and (x.dim() < 2 or dim % x.dim() != 1):
        raise ValueError(
            f"bias_act got scale or noise with dim {dim} and x of shape {shape}; expected dim 1 and x [N, C, ...]"
        )
    if scale is not None and list(scale.shape) != shape[:2]:
        raise ValueError(f"bias_act got scale of shape {list(scale.shape)}; expected {shape[:2]}, [N, C] of x {shape}")
    if noise is not None:
        spatial, given = shape[2:], list(noise.shape)
        if not spatial or given not in (spatial, [1, 1, *spatial], [shape[0], 1, *spatial]):
            raise ValueError(f"bias_act got noise of shape {given}; expected [N or 1, 1, H, W] or [H, W] of x {shape}")
