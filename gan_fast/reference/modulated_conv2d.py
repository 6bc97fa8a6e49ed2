r"""Modulated convolution, in plain PyTorch as the papers write it: one set of weights for every sample.

    w'_noikl = s_ni w_oikl                                    modulation
    w''_no   = w'_no / sqrt(sum over i, k, l of w'^2 + eps)   demodulation
    y_n      = act(gain, clamp)( w''_n * x_n + noise + b )

The samples of a batch are the groups of one grouped convolution. With `up` and `down` the convolution is that of
`conv2d_resample`.

Sources: Karras et al. 2020 (StyleGAN2), section 2.2; Karras et al. 2021 (StyleGAN3), appendix G.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast.reference.bias_act import ACTIVATIONS, bias_act
from gan_fast.reference.conv2d_resample import Padding, conv2d_resample

EPS = 1e-8


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
    *,
    bias: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    input_gain: Tensor | None = None,
) -> Tensor:
    """StyleGAN2's form and the layer's epilogue; `x` `[N, I, H, W]`, `weight` `[O, I, kh, kw]`, `styles` `[N, I]`."""
    if x.dtype == torch.float16 and demodulate:
        weight, styles = unit_range(weight, styles)
    w = modulated_weights(weight, styles, demodulate, input_gain)
    y = convolve_samples(x, w, resample_filter, up, down, padding, flip_weight)
    return epilogue(y, noise, bias, act, alpha, gain, clamp)


def modulated_conv2d_v3(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    demodulate: bool = True,
    padding: Padding = 0,
    input_gain: Tensor | None = None,
) -> Tensor:
    """StyleGAN3's form: weights and styles are first brought to mean square 1."""
    if demodulate:
        w, s = unit_mean_square(w, s)
    return convolve_samples(x, modulated_weights(w, s, demodulate, input_gain), None, 1, 1, padding, True)


def modulated_weights(weight: Tensor, styles: Tensor, demodulate: bool, input_gain: Tensor | None) -> Tensor:
    """w'' `[N, O, I, kh, kw]`; `input_gain`, [], `[I]` or `[N, I]`, acts on the image and so does not take part in
    the demodulation."""
    w = weight.unsqueeze(0) * styles[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum(dim=[2, 3, 4], keepdim=True) + EPS).rsqrt()
    if input_gain is not None:
        w = w * input_gain.expand(styles.shape)[:, None, :, None, None]
    return w


def convolve_samples(
    x: Tensor, w: Tensor, f: Tensor | None, up: int, down: int, padding: Padding, flip_weight: bool
) -> Tensor:
    """Sample n with weights n: a grouped convolution of one image with N I channels."""
    n, o = w.shape[:2]
    if n == 0:  # there is no convolution of no groups
        shared = x.new_zeros(w.shape[1:]) + w.to(x.dtype).sum(0)
        return conv2d_resample(x, shared, f, up, down, padding, 1, flip_weight)
    image = x.reshape(1, -1, *x.shape[2:])
    y = conv2d_resample(image, w.to(x.dtype).flatten(0, 1), f, up, down, padding, n, flip_weight)
    return y.reshape(n, o, *y.shape[2:])


def epilogue(
    y: Tensor,
    noise: Tensor | None,
    bias: Tensor | None,
    act: str,
    alpha: float | None,
    gain: float | None,
    clamp: float | None,
) -> Tensor:
    """What follows the convolution in a synthesis layer."""
    entry = ACTIVATIONS[act]
    alpha = entry.alpha if alpha is None else alpha
    gain = entry.gain if gain is None else gain
    return bias_act(y, bias, None, noise, 1, entry.code, alpha, gain, -1.0 if clamp is None else clamp)


def unit_range(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """For float16 before a demodulation, which takes a factor out again: weights of largest entry 1 / sqrt(fan in) for
    each output channel, styles of largest entry 1 for each sample. Zeros stay zeros."""
    largest = weight.abs().amax(dim=[1, 2, 3], keepdim=True)
    fan_in = weight[0].numel()
    return weight / _nonzero(largest * fan_in**0.5), styles / _nonzero(styles.abs().amax(dim=1, keepdim=True))


def unit_mean_square(w: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of mean square 1 for each output channel, styles of mean square 1 in all. Zeros stay zeros."""
    return w * _nonzero(w.square().mean(dim=[1, 2, 3], keepdim=True)).rsqrt(), s * _nonzero(s.square().mean()).rsqrt()


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.ones_like(x))
