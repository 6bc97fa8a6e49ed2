r"""Convolution with resampling, in plain PyTorch.

    y = D_down( f * ( w * pad( gain f * Z_up(x) ) ) )        gain = up^2

Z_up inserts zeros between the pixels, f is the low-pass filter (applied once for up > 1 and once for down > 1), w the
convolution and D_down keeps every down-th pixel. Everywhere x counts as zero outside, and only pixels that every later
step needs are kept, so the steps are restrictions of convolutions on an infinite plane, which commute: the cheapest
order gives the same result, borders included.

    up, kernel 1x1     convolve, then upsample                     the convolution sees 1/up^2 of the pixels
    up                 transposed convolution, then the filter     no product with an inserted zero
    down               the filter, then a strided convolution      no pixel that is thrown away
    down, kernel 1x1   filter and decimate, then convolve

Source: Karras et al. 2020 (StyleGAN2), appendix B; the interface is StyleGAN2-ADA's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from gan_fast.reference.upfirdn2d import upfirdn2d as plain_upfirdn2d

Padding = int | Sequence[int]


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: int = 1,
    down: int = 1,
    padding: Sequence[int] = (0, 0, 0, 0),
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """The reference with the defaults of the public function."""
    return plain_upfirdn2d(x, f, [up, up], [down, down], padding, flip_filter, gain)


class Products(NamedTuple):
    """What the orders above are made of, with the signatures of torch's and of `upfirdn2d`."""

    conv2d: Callable[..., Tensor]
    conv_transpose2d: Callable[..., Tensor]
    upfirdn2d: Callable[..., Tensor]


PLAIN = Products(F.conv2d, F.conv_transpose2d, upfirdn2d)


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
    products: Products = PLAIN,
) -> Tensor:
    """`x` `[N, I, H, W]`, `w` `[O, I / groups, kh, kw]`; padding is that of the upsampled image."""
    conv2d, conv_transpose2d, resample = products
    kh, kw = w.shape[2:]
    x0, x1, y0, y1 = image_padding(f, up, down, padding)
    small = kh == 1 and kw == 1
    if small and down > 1 and up == 1:
        x = resample(x, f, down=down, padding=[x0, x1, y0, y1], flip_filter=flip_filter)
        return conv2d(x, _correlation(w, flip_weight), groups=groups)
    if small and up > 1 and down == 1:
        y = conv2d(x, _correlation(w, flip_weight), groups=groups)
        return resample(y, f, up=up, padding=[x0, x1, y0, y1], gain=up**2, flip_filter=flip_filter)
    if up > 1 and down == 1:
        y = conv_transpose2d(x, _transposed(w, groups, flip_weight), stride=up, groups=groups)
        rest = [x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up)]
        return resample(y, f, padding=rest, gain=up**2, flip_filter=flip_filter)
    if up > 1:  # both: upsample, then down as below
        x = resample(x, f, up=up, padding=[x0, x1, y0, y1], gain=up**2, flip_filter=flip_filter)
        x0 = x1 = y0 = y1 = 0
    if down > 1:
        x = resample(x, f, padding=[x0, x1, y0, y1], flip_filter=flip_filter)
        return conv2d(x, _correlation(w, flip_weight), stride=down, groups=groups)
    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return conv2d(x, _correlation(w, flip_weight), padding=[y0, x0], groups=groups)
    return conv2d(F.pad(x, [x0, x1, y0, y1]), _correlation(w, flip_weight), groups=groups)


def image_padding(f: Tensor | None, up: int, down: int, padding: Padding) -> list[int]:
    """[x0, x1, y0, y1]: the caller's, and what keeps a resampled image where it is under a filter of f's size."""
    sides: list[Any] = [padding] * 4 if isinstance(padding, int) else list(padding)
    if len(sides) == 2:
        sides = [sides[0], sides[0], sides[1], sides[1]]
    fh, fw = (1, 1) if f is None else (f.shape[0], f.shape[-1])
    for size, at in ((fw, 0), (fh, 2)):
        if up > 1:
            sides[at] += (size + up - 1) // 2
            sides[at + 1] += (size - up) // 2
        if down > 1:
            sides[at] += (size - down + 1) // 2
            sides[at + 1] += (size - down) // 2
    return sides


def _correlation(w: Tensor, flip_weight: bool) -> Tensor:
    """torch's convolution is a correlation: a true convolution has its kernel turned."""
    return w if flip_weight else w.flip([2, 3])


def _transposed(w: Tensor, groups: int, flip_weight: bool) -> Tensor:
    """[O, I / groups, kh, kw] as conv_transpose2d takes it: [I, O / groups, kh, kw], the kernel turned."""
    w = w.flip([2, 3]) if flip_weight else w
    if groups == 1:
        return w.transpose(0, 1)
    o, i, kh, kw = w.shape
    return w.reshape(groups, o // groups, i, kh, kw).transpose(1, 2).reshape(groups * i, o // groups, kh, kw)
