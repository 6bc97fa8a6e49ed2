"""Modulated convolution as one shared convolution between two elementwise passes.

    y_n = act( d_n conv(s_n x_n; W) + noise + b )        d_no = 1 / sqrt(sum over i of s_ni^2 q_oi + eps)
                                                         q_oi = sum over k, l of W_oikl^2

The style multiplies input channels and the demodulation output channels, so both may be taken out of the weights
w_n = d_n s_n W: every sample is convolved with the same W, and there are no [N, O, I, kh, kw] weights nor gradients of
them. The first pass writes s x; the last takes d, noise, bias, activation, gain and clamp together. Where kernels do so
as they read and write, on CUDA and for 3x3 layers of the CPU, there are no such passes: the layer is one op.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast import _C, triton
from gan_fast._modes import use_reference
from gan_fast.ops.bias_act import bias_act
from gan_fast.ops.conv2d_resample import LEAN, check, in_autocast_dtype, layout, without_autocast
from gan_fast.reference import modulated_conv2d as reference
from gan_fast.reference.adversarial_loss import accumulate_dtype
from gan_fast.reference.bias_act import ACTIVATIONS
from gan_fast.reference.conv2d_resample import Padding
from gan_fast.reference.conv2d_resample import conv2d_resample as resampled
from gan_fast.reference.modulated_conv2d import EPS

_modulated_convolution = torch.ops.gan_fast.modulated_convolution.default


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool | None = None,
    *,
    bias: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    input_gain: Tensor | None = None,
) -> Tensor:
    """StyleGAN2's modulated convolution and, where given, the rest of its layer in the same passes.

    The weights of sample n are `weight * styles[n]`, over the input channels, brought to norm 1 for each output channel
    if `demodulate`; then `act(conv2d_resample(x, w) + noise + bias)`.

    Args:
        x: `[N, I, H, W]`, float64, float32, bfloat16 or float16.
        weight: `[O, I, kh, kw]`; it, `styles`, `noise` and `bias` may be wider than `x`: bfloat16 images, float32
            parameters.
        styles: `[N, I]`.
        noise: `[N, 1, H', W']`, `[1, 1, H', W']` or `[H', W']`, the same for all channels, or None.
        up, down, padding, resample_filter, flip_weight: as in `conv2d_resample`.
        demodulate: divide by the norm of the weights (with eps 1e-8 on its square).
        fused_modconv: taken for compatibility; which formulation runs is chosen here.
        bias: `[O]`, or None.
        act, alpha, gain, clamp: as in `bias_act`.
        input_gain: [], `[I]` or `[N, I]`: multiplies the image and takes no part in the demodulation.

    Returns:
        `[N, O, H', W']` in the dtype and the memory layout of `x`; under autocast in autocast's dtype, in which the
        convolution then runs.

    Raises:
        ValueError: shapes that do not fit together.

    Differentiable to any order in `x`, `weight`, `styles`, `noise`, `bias` and `input_gain`. A row of zero styles gives
    zeros. In float16 with demodulation, weights and styles are first divided by their largest entries, which
    demodulation takes out again. Source: Karras et al. 2020 (StyleGAN2), section 2.2.
    """
    check(x, weight, up, down, padding)
    _check_styles(x, styles, weight)
    (x,) = in_autocast_dtype(x)
    if use_reference():
        return reference.modulated_conv2d(
            x, weight, styles, noise, up, down, padding, resample_filter, demodulate, flip_weight,
            bias=bias, act=act, alpha=alpha, gain=gain, clamp=clamp, input_gain=input_gain,
        )  # fmt: skip
    with without_autocast(x):
        if x.dtype == torch.float16 and demodulate:
            weight, styles = reference.unit_range(weight, styles)
        d = _demodulation(styles, _squares(weight)) if demodulate else None
        s = _applied(styles, input_gain)
        entry = ACTIVATIONS.get(act, ACTIVATIONS["linear"])  # the epilogue refuses another name
        slope, factor = entry.alpha if alpha is None else alpha, entry.gain if gain is None else gain
        if up == down == 1 and _is_one_op(x, weight, padding, act, slope, factor):
            w = weight if flip_weight else weight.flip([2, 3])
            return _fused(x, w, s, d, noise, bias, padding, entry.code, slope, factor, clamp)
        y = _convolve(x, weight, s, up, down, padding, resample_filter, flip_weight)
        return _epilogue(y, d, noise, bias, act, alpha, gain, clamp)


def modulated_conv2d_v3(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    demodulate: bool = True,
    padding: Padding = 0,
    input_gain: Tensor | None = None,
) -> Tensor:
    """StyleGAN3's modulated convolution: weights and styles are first brought to mean square 1 if `demodulate`.

    Args:
        x: `[N, I, H, W]`, float64, float32, bfloat16 or float16.
        w: `[O, I, kh, kw]`; it and `s` may be wider than `x`.
        s: `[N, I]`.
        demodulate: bring the weights of each sample and output channel to norm 1.
        padding: as in `conv2d_resample`.
        input_gain: [], `[I]` or `[N, I]`: multiplies the image and takes no part in the demodulation.

    Returns:
        `[N, O, H', W']` in the dtype and the memory layout of `x`.

    Raises:
        ValueError: shapes that do not fit together.

    Differentiable to any order in all tensors. A row of zero styles gives zeros. Source: Karras et al. 2021
    (StyleGAN3), appendix G.
    """
    check(x, w, 1, 1, padding)
    _check_styles(x, s, w)
    (x,) = in_autocast_dtype(x)
    if use_reference():
        return reference.modulated_conv2d_v3(x, w, s, demodulate, padding, input_gain)
    with without_autocast(x):
        d = None
        if demodulate:
            w, s = reference.unit_mean_square(w, s)
            d = _demodulation(s, _squares(w))
        s = _applied(s, input_gain)
        if _is_one_op(x, w, padding, "linear", 0.0, 1.0):
            return _fused(x, w, s, d, None, None, padding, 0, 0.0, 1.0, None)
        y = _convolve(x, w, s, 1, 1, padding, None, True)
        return _epilogue(y, d, None, None, "linear", None, None, None)


def _is_one_op(x: Tensor, w: Tensor, padding: Padding, act: str, alpha: float, gain: float) -> bool:
    """Whether the op `modulated_convolution` runs a layer at stride 1, or it is composed of others."""
    if x.device.type != "cpu":
        return triton.serves(x, w, padding, act, alpha, gain)
    if act not in triton.FUSED or alpha < 0 or not gain > 0 or x.dtype == torch.float16:
        return False
    if w.shape[2] != 3 or w.shape[3] != 3 or not isinstance(padding, int) or not 0 <= padding <= 2:
        return False
    limits = _cpu_limits(x.dtype == torch.bfloat16, layout(x) == torch.channels_last)
    if limits is None or torch.compiler.is_exporting():  # an exported program is for any size and processor
        return False
    channels, least_tiles, pixels = limits
    n, _, height, width = x.shape
    grown = 2 * padding - 2
    for h, v in ((height, width), (height + grown, width + grown)):  # the input gradient's, the output's
        tiles = n * ((h + 1) // 2) * ((v + 1) // 2)
        if not (_is_known(h > 0) and _is_known(v > 0) and _is_known(tiles >= least_tiles)):
            return False
        if not _is_known(n * h * v >= pixels * tiles):
            return False
    return w.shape[0] >= channels and w.shape[1] >= channels


def _is_known(condition: bool) -> bool:
    """Whether a condition on sizes holds; False where a tracer cannot know."""
    if not torch.compiler.is_compiling():
        return bool(condition)
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    return guard_or_false(condition)


def _cpu_limits(narrow: bool, last: bool) -> tuple[int, int, int] | None:
    """Least channels, tiles and pixels of a tile for Winograd's kernels; None where they run nothing."""
    return _C.winograd_layer_limits(narrow, last)


# A tracer is told what this processor has; torch.compiler.assume_constant_result would import torch._dynamo for it.
_cpu_limits._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _fused(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    d: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    padding: Padding,
    act: int,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """The whole layer as one op."""
    if noise is not None and noise.dim() == 2:
        noise = noise[None, None]
    limit = -1.0 if clamp is None else float(clamp)
    numbers = padding, act, float(alpha), float(gain), limit
    if x.device.type != "cpu":
        w = w.to(x.dtype, memory_format=torch.channels_last)  # one pass does both, and all three products want it so
    elif w.dtype != x.dtype:
        w = w.to(accumulate_dtype(x))
    y: Tensor = _modulated_convolution(x, w, s, d, noise, bias, *numbers)
    return y


def _convolve(
    x: Tensor, w: Tensor, s: Tensor, up: int, down: int, padding: Padding, f: Tensor | None, flip_weight: bool
) -> Tensor:
    """The shared convolution of the modulated image."""
    y = resampled(bias_act(x, scale=s), w.to(x.dtype), f, up, down, padding, 1, flip_weight, products=LEAN)
    return y.contiguous(memory_format=layout(x))


def _epilogue(
    y: Tensor,
    d: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    act: str,
    alpha: float | None,
    gain: float | None,
    clamp: float | None,
) -> Tensor:
    return bias_act(y, bias, act=act, alpha=alpha, gain=gain, clamp=clamp, scale=d, noise=noise)


def _squares(weight: Tensor) -> Tensor:
    """q `[O, I]`, in at least float32."""
    w = weight if weight.dtype == torch.float64 else weight.float()
    return w.square().sum(dim=[2, 3])


def _demodulation(styles: Tensor, q: Tensor) -> Tensor:
    """d `[N, O]`."""
    return (styles.to(q.dtype).square() @ q.t() + EPS).rsqrt()


def _applied(styles: Tensor, input_gain: Tensor | None) -> Tensor:
    """What the image is multiplied with, `[N, I]`."""
    return styles if input_gain is None else styles * input_gain


def _check_styles(x: Tensor, styles: Tensor, weight: Tensor) -> None:
    expected = [x.shape[0], weight.shape[1]]
    if styles.dim() != 2 or list(styles.shape) != expected:
        raise ValueError(
            f"the styles are {list(styles.shape)}; expected [N, I] = {expected}, one for each input channel"
        )
