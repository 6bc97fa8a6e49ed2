"""y = clamp(gain act(u)), u = x scale + noise + b, in plain PyTorch, and the formulas of its first two backward passes.

With D1 and D2 the first and second derivative of y in u (0 where y is at the clamp), and the sums over all that a
parameter is broadcast over,

    g = dy D1     dx = g scale        db = sum g      dscale = sum g x              dnoise = sum g

and of these, with cotangents tx, tb, tscale, tnoise, which move u by t = tx scale + x tscale + tnoise + tb,

    q = dy D2 t   ddy = D1 t   dx = q scale + g tscale   db = sum q   dscale = sum (q x + g tx)   dnoise = sum q

Source: the interface of NVIDIA's StyleGAN code bases, extended by scale and noise, and calculus.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype


class Activation(NamedTuple):
    """The number the kernels know it by, and the defaults; alpha is the slope of lrelu below zero alone."""

    code: int
    alpha: float
    gain: float


ACTIVATIONS = {
    "linear": Activation(0, 0.0, 1.0),
    "relu": Activation(1, 0.0, 2**0.5),
    "lrelu": Activation(2, 0.2, 2**0.5),
    "tanh": Activation(3, 0.0, 1.0),
    "sigmoid": Activation(4, 0.0, 1.0),
    "elu": Activation(5, 0.0, 1.0),
    "selu": Activation(6, 0.0, 1.0),
    "softplus": Activation(7, 0.0, 1.0),
    "swish": Activation(8, 0.0, 2**0.5),
}
NAMES = tuple(ACTIVATIONS)
SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def reads_input(act: int, alpha: float) -> bool:
    """Whether the derivatives are read from x: those of linear, relu and lrelu are read from the sign of y."""
    return act > 2 or (act == 2 and alpha < 0)


def along(v: Tensor, dim: int, rank: int) -> Tensor:
    """`[C]` as a tensor of `rank` dimensions that broadcasts along `dim`."""
    return v.reshape([-1 if i == dim else 1 for i in range(rank)])


def per_sample(v: Tensor, rank: int) -> Tensor:
    """`[N, C]` as `[N, C, 1, ...]`."""
    return v.reshape([*v.shape, *[1] * (rank - 2)])


def activate(u: Tensor, act: int, alpha: float) -> Tensor:
    """act(u)."""
    name = NAMES[act]
    if name == "linear":
        return u
    if name == "lrelu":
        return F.leaky_relu(u, alpha)
    if name == "swish":
        return u * torch.sigmoid(u)
    if name == "softplus":
        return -F.logsigmoid(-u)  # F.softplus is linear above 20
    if name == "relu":
        return F.relu(u)
    if name in ("elu", "selu"):
        return F.elu(u) if name == "elu" else F.selu(u)
    return torch.tanh(u) if name == "tanh" else torch.sigmoid(u)


def slope(u: Tensor, act: int, alpha: float) -> Tensor:
    """act'(u)."""
    name, one = NAMES[act], torch.ones_like(u)
    if name == "linear":
        return one
    if name in ("relu", "lrelu"):
        return torch.where(u > 0, one, one * (alpha if name == "lrelu" else 0.0))
    if name == "tanh":
        return 1 - torch.tanh(u).square()
    if name in ("elu", "selu"):
        e = torch.exp(u.clamp(max=0))
        return torch.where(u > 0, one, e) if name == "elu" else SELU_SCALE * torch.where(u > 0, one, SELU_ALPHA * e)
    s, m = torch.sigmoid(u), torch.sigmoid(-u)
    return {"sigmoid": s * m, "softplus": s, "swish": s * (1 + u * m)}[name]


def curvature(u: Tensor, act: int) -> Tensor:
    """act''(u), 0 at a kink."""
    name = NAMES[act]
    if name in ("linear", "relu", "lrelu"):
        return torch.zeros_like(u)
    if name == "tanh":
        h = torch.tanh(u)
        return -2 * h * (1 - h.square())
    if name in ("elu", "selu"):
        e = torch.exp(u.clamp(max=0)) * (1 if name == "elu" else SELU_SCALE * SELU_ALPHA)
        return torch.where(u > 0, torch.zeros_like(u), e)
    s, m = torch.sigmoid(u), torch.sigmoid(-u)
    return {"sigmoid": s * m * (m - s), "softplus": s * m, "swish": s * m * (2 + u * (m - s))}[name]


def preactivation(x: Tensor, b: Tensor | None, scale: Tensor | None, noise: Tensor | None, dim: int) -> Tensor:
    """u = x scale + noise + b, in float32 (float64 for float64)."""
    wide = accumulate_dtype(x)
    u = x.to(wide)
    if scale is not None:
        u = u * per_sample(scale.to(wide), x.dim())
    if noise is not None:
        u = u + noise.to(wide)
    if b is not None:
        u = u + along(b.to(wide), dim, x.dim())
    return u


def bias_act(
    x: Tensor,
    b: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    dim: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """In the dtype of x; differentiable to any order."""
    y = activate(preactivation(x, b, scale, noise, dim), act, alpha)
    y = y * gain if gain != 1 else y
    return (y.clamp(-clamp, clamp) if clamp >= 0 else y).to(x.dtype)


def _slopes(
    x: Tensor | None,
    y: Tensor | None,
    b: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    like: Tensor,
    dim: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
) -> tuple[Tensor, Tensor | None]:
    """D1, and D2 where it is not zero: of u where that is known, else read from the result y, else constant."""
    wide = accumulate_dtype(like)
    if reads_input(act, alpha):
        assert x is not None
        u = preactivation(x, b, scale, noise, dim)
        first, second = gain * slope(u, act, alpha), gain * curvature(u, act)
        inside = torch.ones_like(u) if clamp < 0 else ((gain * activate(u, act, alpha)).abs() < clamp).to(wide)
        return first * inside, second * inside
    if act == 0 and clamp < 0:
        return torch.full_like(like, gain, dtype=wide), None
    assert y is not None
    first = gain * slope(y.to(wide) * (1 / gain if gain else 0.0), act, alpha)
    bound = torch.tensor(clamp, dtype=y.dtype, device=y.device)
    return (first * (y.abs() < bound) if clamp >= 0 else first), None


def _reduced(g: Tensor, like: Tensor, shape: list[int]) -> Tensor:
    """The sum of g to a shape that broadcasts to its own, in the shape and dtype of `like`."""
    return g.sum_to_size(shape).reshape(like.shape).to(like.dtype)


def _gradients(
    through_u: Tensor | None,
    dx: Tensor | None,
    dscale: Tensor | None,
    b: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    x: Tensor,
    dim: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dx, db, dscale, dnoise), empty where not wanted; `through_u` is the gradient in u."""
    nothing = x.new_empty(0)
    rank = x.dim()
    zero = through_u is None
    out = [nothing] * 4
    if wanted[0]:
        out[0] = torch.zeros_like(x) if dx is None else dx.to(x.dtype)
    if wanted[1] and b is not None:
        shape = list(along(b, dim, rank).shape)
        out[1] = torch.zeros_like(b) if zero else _reduced(through_u, b, shape)  # type: ignore[arg-type]
    if wanted[2] and scale is not None:
        shape = list(per_sample(scale, rank).shape)
        out[2] = torch.zeros_like(scale) if dscale is None else _reduced(dscale, scale, shape)
    if wanted[3] and noise is not None:
        shape = [1] * (rank - noise.dim()) + list(noise.shape)
        out[3] = torch.zeros_like(noise) if zero else _reduced(through_u, noise, shape)  # type: ignore[arg-type]
    return out[0], out[1], out[2], out[3]


def bias_act_backward(
    dy: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    b: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    dim: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(dx, db, dscale, dnoise), each in the dtype of its input, those not wanted empty.

    y is given for linear with a clamp, relu and lrelu, x for the others (`reads_input`) and wherever dscale is wanted.
    """
    wide = accumulate_dtype(dy)
    first, _ = _slopes(x, y, b, scale, noise, dy, dim, act, alpha, gain, clamp)
    g = dy.to(wide) * first
    dx = g if scale is None else g * per_sample(scale.to(wide), dy.dim())
    dscale = g * x.to(wide) if wanted[2] and x is not None else None
    return _gradients(g, dx, dscale, b, scale, noise, dy, dim, wanted)


def bias_act_backward_(
    dy: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    b: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    dim: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """(db, dscale, dnoise) of `bias_act_backward`, with dx in the memory of dy."""
    dx, *others = bias_act_backward(dy, x, y, b, scale, noise, dim, act, alpha, gain, clamp, [True, *wanted[1:]])
    dy.copy_(dx)
    return others[0], others[1], others[2]


def bias_act_double_backward(
    tx: Tensor | None,
    tb: Tensor | None,
    tscale: Tensor | None,
    tnoise: Tensor | None,
    dy: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    b: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    dim: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(ddy, dx, db, dscale, dnoise): the gradients of `bias_act_backward` for given cotangents of its results."""
    wide, rank = accumulate_dtype(dy), dy.dim()
    first, second = _slopes(x, y, b, scale, noise, dy, dim, act, alpha, gain, clamp)
    g = dy.to(wide) * first
    t = torch.zeros_like(g)
    if tx is not None:
        t = t + (tx.to(wide) if scale is None else tx.to(wide) * per_sample(scale.to(wide), rank))
    if tscale is not None and x is not None:
        t = t + x.to(wide) * per_sample(tscale.to(wide), rank)
    if tnoise is not None:
        t = t + tnoise.to(wide)
    if tb is not None:
        t = t + along(tb.to(wide), dim, rank)
    q = None if second is None else dy.to(wide) * second * t
    dx = None if q is None else (q if scale is None else q * per_sample(scale.to(wide), rank))
    if tscale is not None:
        direct = g * per_sample(tscale.to(wide), rank)
        dx = direct if dx is None else dx + direct
    dscale = None if q is None or x is None else q * x.to(wide)
    if tx is not None:
        dscale = g * tx.to(wide) if dscale is None else dscale + g * tx.to(wide)
    ddy = (first * t).to(dy.dtype) if wanted[0] else dy.new_empty(0)
    return ddy, *_gradients(q, dx, dscale, b, scale, noise, dy, dim, wanted[1:])
