"""y = E(d conv(s x; w) + noise + b), E(u) = clamp(gain act(u)), and its gradients, in plain PyTorch.

    modulated_convolution   y[n,o,p]  = E( d[n,o] sum_{i,t} w[o,i,t] s[n,i] x[n,i,p+t] + noise[n,p] + b[o] )
    input_gradient          g[n,i,p]  = sum_{o,t} w[o,i,t] d[n,o] dz[n,o,p-t],     dx = s g,     ds = sum_p x g
    weight_gradient         dw[o,i,t] = sum_{n,p} d[n,o] dz[n,o,p] s[n,i] x[n,i,p+t]
    epilogue_gradient       dz = dy E',   sums = sum_p dz,   products = sum_p (dy y [|y| < clamp] - dz noise)

The shared convolution between two elementwise passes: one set of weights for the whole batch. Elementwise arithmetic is
in float32 (float64 for float64) and rounds once; results have the memory order of the image they are made from.
`csrc/modulated_convolution/` has the autograd and says how these four serve every order of gradient.

act is 0 (linear), 1 (relu) or 2 (leaky relu with slope alpha), gain is positive, a negative clamp is none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype


def memory_order(x: Tensor) -> torch.memory_format:
    """channels_last or contiguous, as `suggest_memory_format` of C++ answers: the order of a result made of x."""
    least = 0
    for dim in (1, 3, 2, 0):
        size, stride = x.shape[dim], x.stride(dim)
        ambiguous = stride == 0 if dim == 1 else dim == 0 and least == x.stride(1)
        if size == 0 or stride < least or ambiguous:
            return torch.contiguous_format
        least = stride * max(size, 1)
    return torch.channels_last


def scaled(x: Tensor, v: Tensor | None) -> Tensor:
    """x `[N, C, H, W]` times v `[N, C]`, in the dtype of x."""
    return x if v is None else (x * v.to(accumulate_dtype(x))[:, :, None, None]).to(x.dtype)


def check(
    x: Tensor,
    w: Tensor,
    s: Tensor | None,
    d: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    padding: int,
    act: int,
    gain: float,
) -> None:
    """Raises where the arguments of the forward pass do not fit together."""
    if x.dim() != 4 or w.dim() != 4 or x.shape[1] != w.shape[1] or w.shape[2] != w.shape[3]:
        raise ValueError(
            f"modulated_convolution got x of shape {list(x.shape)} and w of shape {list(w.shape)}; "
            "expected [N, I, H, W] and [O, I, k, k]"
        )
    if w.dtype not in (x.dtype, accumulate_dtype(x)):
        raise TypeError(
            f"modulated_convolution got x of {x.dtype} and w of {w.dtype}; expected w of that dtype or of "
            f"{accumulate_dtype(x)}"
        )
    n, size, grown = x.shape[0], w.shape[2], 2 * padding + 1 - w.shape[2]
    if not 0 <= padding < size:
        raise ValueError(f"modulated_convolution got padding {padding} for a kernel of {size}; expected 0 to size - 1")
    if act not in (0, 1, 2) or not gain > 0:
        raise ValueError(
            f"modulated_convolution got activation number {act} and gain {gain}; "
            "it fuses 0 (linear), 1 (relu) and 2 (lrelu) with a positive gain"
        )
    pixels = [x.shape[2] + grown, x.shape[3] + grown]
    for name, given, allowed in (
        ("s", s, [[n, w.shape[1]]]),
        ("d", d, [[n, w.shape[0]]]),
        ("noise", noise, [[n, 1, *pixels], [1, 1, *pixels]]),
        ("bias", bias, [[w.shape[0]]]),
    ):
        if given is not None and list(given.shape) not in allowed:
            raise ValueError(
                f"modulated_convolution got {name} of shape {list(given.shape)} for x of shape {list(x.shape)} and w "
                f"of shape {list(w.shape)}; expected {' or '.join(map(str, allowed))}"
            )


def modulated_convolution(
    x: Tensor,
    w: Tensor,
    s: Tensor | None,
    d: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    padding: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """y `[N, O, H', W']`; s `[N, I]`, d `[N, O]`, noise `[N or 1, 1, H', W']`, bias `[O]`."""
    check(x, w, s, d, noise, bias, padding, act, gain)
    u = F.conv2d(scaled(x, s), w.to(x.dtype), padding=padding)
    wide = accumulate_dtype(x)
    u = u.to(wide)
    if d is not None:
        u = u * d.to(wide)[:, :, None, None]
    if noise is not None:
        u = u + noise.to(wide)
    if bias is not None:
        u = u + bias.to(wide)[:, None, None]
    if act:
        u = F.leaky_relu(u, _slope(act, alpha))
    u = u * gain
    if clamp >= 0:
        u = u.clamp(-clamp, clamp)
    return u.to(x.dtype, memory_format=memory_order(x)).contiguous(memory_format=memory_order(x))


def input_gradient(
    dz: Tensor, w: Tensor, s: Tensor | None, d: Tensor | None, x: Tensor | None, padding: int
) -> tuple[Tensor, Tensor]:
    """dx `[N, I, H, W]`, and ds `[N, I]` where x is given, else an empty tensor."""
    g = F.conv_transpose2d(scaled(dz, d), w.to(dz.dtype), padding=padding)
    wide = accumulate_dtype(dz)
    ds = dz.new_empty(0, dtype=wide) if x is None else (g.to(wide) * x.to(wide)).sum((2, 3))
    return scaled(g, s).contiguous(memory_format=memory_order(dz)), ds


def weight_gradient(dz: Tensor, x: Tensor, s: Tensor | None, d: Tensor | None, size: int, padding: int) -> Tensor:
    """dw `[O, I, size, size]`, channels_last."""
    like = x.new_empty(dz.shape[1], x.shape[1], size, size)
    both, one = [padding, padding], [1, 1]
    dw: Tensor = torch.ops.aten.convolution_backward(
        scaled(dz, d), scaled(x, s), like, None, one, both, one, False, [0, 0], 1, [False, True, False]
    )[1]
    return dw.contiguous(memory_format=torch.channels_last)


def epilogue_gradient(
    dy: Tensor, y: Tensor, noise: Tensor | None, act: int, alpha: float, gain: float, clamp: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dz as y, sums and products `[N, O]`. At a kink the derivative from below counts, at the clamp it is 0."""
    wide = accumulate_dtype(y)
    g, v = dy.to(wide), y.to(wide)
    if clamp >= 0:
        g = torch.where(y.abs() < torch.tensor(clamp, dtype=y.dtype, device=y.device), g, 0.0)
    products = g * v
    g = g * gain
    if act:
        g = torch.where(y > 0, g, g * _slope(act, alpha))
    if noise is not None:
        products = products - g * noise.to(wide)
    dz = g.to(y.dtype).contiguous(memory_format=memory_order(y))
    return dz, g.sum((2, 3)), products.sum((2, 3))


def _slope(act: int, alpha: float) -> float:
    return alpha if act == 2 else 0.0
