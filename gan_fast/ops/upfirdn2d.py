r"""Resampling of images by FIR filters: upsample with zeros, pad or crop, filter, downsample, in one pass.

    upfirdn2d      any factors, padding, filter
    filter2d       filter at the same size
    upsample2d     by an integer factor, brightness kept
    downsample2d   by an integer factor

with the modules `Filter2d`, `Upsample2d` and `Downsample2d`, and `setup_filter`, which prepares a filter. Along each
axis, for o = 0 ... (n up + p0 + p1 - taps) // down,

    y[o] = gain sum_k h[k] u[o down + k - p0],    u[i up] = x[i], u = 0 elsewhere

The op is linear in the image and its gradient is the op itself with `up` and `down` exchanged, so every order of
gradient costs one pass. The inserted zeros are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gan_fast._modes import use_reference
from gan_fast.reference import upfirdn2d as reference

Factor = int | Sequence[int]
_op = torch.ops.gan_fast.upfirdn2d.default


def setup_filter(
    f: Tensor | Sequence[float] | Sequence[Sequence[float]] | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """A filter made ready for the functions below.

    Args:
        f: taps `[n]` (a separable filter), a matrix `[fh, fw]`, one number, or None for the identity.
        device: where the filter shall lie: that of the images.
        normalize: divide by the sum of the taps, so that a constant image keeps its brightness.
        flip_filter: turn the filter round.
        gain: a factor of the whole filter.
        separable: keep taps `[n]` as they are instead of making their matrix. None: where there are 8 or more, from
            where two passes cost less than one.

    Returns:
        float32, `[n]` where separable and `[fh, fw]` elsewhere.

    Raises:
        ValueError: no taps, more than two dimensions, or a matrix with `separable=True`; taps that sum to zero with
            `normalize`.
    """
    taps = torch.as_tensor(1.0 if f is None else f, dtype=torch.float32).detach()
    if taps.dim() > 2 or taps.numel() == 0:
        raise ValueError(f"setup_filter got taps of shape {list(taps.shape)}; expected [n] or [fh, fw], at least one")
    if taps.dim() == 2 and separable:
        raise ValueError(
            f"setup_filter got a matrix {list(taps.shape)} with separable=True; give its taps [n], or separable=None"
        )
    taps = taps[None] if taps.dim() == 0 else taps
    if taps.dim() == 1 and not (taps.numel() >= 8 if separable is None else separable):
        taps = torch.outer(taps, taps)
    if normalize:
        total = taps.sum()
        if total == 0:
            raise ValueError("setup_filter got taps that sum to zero, which normalize=True divides by; normalize=False")
        taps = taps / total
    if flip_filter:
        taps = taps.flip(list(range(taps.dim())))
    return (taps * gain ** (taps.dim() / 2)).to(device)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Factor = 1,
    down: Factor = 1,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Put `up` - 1 zeros after every pixel, pad, filter, keep every `down`-th pixel.

    Args:
        x: images `[N, C, H, W]`, float64, float32, bfloat16 or float16, in any memory layout.
        f: the filter on the device of x: `[fh, fw]`, or `[n]`, applied along both axes, or None, the identity. Of any
            floating dtype (`setup_filter` makes float32); it has no gradient.
        up, down: a factor, or [x, y].
        padding: pixels of the upsampled image, one number, [x, y] or [x0, x1, y0, y1]; negative ones crop.
        flip_filter: False convolves with the filter, True correlates.
        gain: a factor of the result.

    Returns:
        `[N, C, H', W']` with H' = (H up + y0 + y1 - fh) // down + 1, in the dtype of x and channels_last where x is.
        Sums are in float32 (float64 for float64). Differentiable with respect to x to any order; under autocast the
        dtype stays that of x.

    Raises:
        ValueError: x that is not `[N, C, H, W]`; a filter of another shape, on another device, or one that requires
            grad; factors below 1; padding that is not one, two or four numbers; a result without pixels.
        TypeError: x or f that is not floating-point.

    Under `torch.func` transforms and forward-mode AD the plain reference serves.
    """
    return _upfirdn2d("upfirdn2d", x, f, _pair("upfirdn2d", "up", up), _pair("upfirdn2d", "down", down),
                      _padding("upfirdn2d", padding), flip_filter, gain)  # fmt: skip


def filter2d(x: Tensor, f: Tensor | None, padding: Factor = 0, flip_filter: bool = False, gain: float = 1) -> Tensor:
    """Filter images `[N, C, H, W]`; their size stays, up to `padding`, which is added to what keeps it.

    With a filter of even size, whose middle is between two pixels, the result lies half a pixel after the input.
    Arguments, result and errors otherwise as for `upfirdn2d`.
    """
    fw, fh = _taps("filter2d", f)
    x0, x1, y0, y1 = _padding("filter2d", padding)
    pads = (x0 + fw // 2, x1 + (fw - 1) // 2, y0 + fh // 2, y1 + (fh - 1) // 2)
    return _upfirdn2d("filter2d", x, f, (1, 1), (1, 1), pads, flip_filter, gain)


def upsample2d(
    x: Tensor, f: Tensor | None, up: Factor = 2, padding: Factor = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Upsample images `[N, C, H, W]` to `[N, C, up H, up W]`, up to `padding`, which is added to what gives that.

    The gain is multiplied by the number of result pixels per pixel, which keeps the brightness under a filter of sum
    one. Arguments, result and errors otherwise as for `upfirdn2d`.
    """
    ux, uy = _pair("upsample2d", "up", up)
    fw, fh = _taps("upsample2d", f)
    x0, x1, y0, y1 = _padding("upsample2d", padding)
    pads = (x0 + (fw + ux - 1) // 2, x1 + (fw - ux) // 2, y0 + (fh + uy - 1) // 2, y1 + (fh - uy) // 2)
    return _upfirdn2d("upsample2d", x, f, (ux, uy), (1, 1), pads, flip_filter, gain * ux * uy)


def downsample2d(
    x: Tensor, f: Tensor | None, down: Factor = 2, padding: Factor = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Downsample images `[N, C, H, W]` to `[N, C, H // down, W // down]`, up to `padding`, added to what gives that.

    Arguments, result and errors otherwise as for `upfirdn2d`.
    """
    dx, dy = _pair("downsample2d", "down", down)
    fw, fh = _taps("downsample2d", f)
    x0, x1, y0, y1 = _padding("downsample2d", padding)
    pads = (x0 + (fw - dx + 1) // 2, x1 + (fw - dx) // 2, y0 + (fh - dy + 1) // 2, y1 + (fh - dy) // 2)
    return _upfirdn2d("downsample2d", x, f, (1, 1), (dx, dy), pads, flip_filter, gain)


class _Resample(nn.Module):
    """Holds a filter in the buffer `resample_filter`."""

    resample_filter: Tensor

    def __init__(
        self,
        filter: Tensor | Sequence[float] | Sequence[Sequence[float]] | None = (1, 3, 3, 1),
        *,
        padding: Factor = 0,
        flip_filter: bool = False,
        gain: float = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", setup_filter(filter))
        self.padding = padding
        self.flip_filter = flip_filter
        self.gain = gain

    def extra_repr(self) -> str:
        return f"filter={list(self.resample_filter.shape)}, padding={self.padding}, gain={self.gain}"


class Filter2d(_Resample):
    """`filter2d` with a filter of its own, normalised: taps `[n]`, a matrix or None."""

    def forward(self, x: Tensor) -> Tensor:
        return filter2d(x, self.resample_filter, self.padding, self.flip_filter, self.gain)


class Upsample2d(_Resample):
    """`upsample2d` by `up` with a filter of its own, normalised: taps `[n]`, a matrix or None."""

    def __init__(
        self,
        filter: Tensor | Sequence[float] | Sequence[Sequence[float]] | None = (1, 3, 3, 1),
        up: Factor = 2,
        *,
        padding: Factor = 0,
        flip_filter: bool = False,
        gain: float = 1,
    ) -> None:
        super().__init__(filter, padding=padding, flip_filter=flip_filter, gain=gain)
        self.up = _pair("Upsample2d", "up", up)

    def forward(self, x: Tensor) -> Tensor:
        return upsample2d(x, self.resample_filter, self.up, self.padding, self.flip_filter, self.gain)

    def extra_repr(self) -> str:
        return f"up={self.up}, {super().extra_repr()}"


class Downsample2d(_Resample):
    """`downsample2d` by `down` with a filter of its own, normalised: taps `[n]`, a matrix or None."""

    def __init__(
        self,
        filter: Tensor | Sequence[float] | Sequence[Sequence[float]] | None = (1, 3, 3, 1),
        down: Factor = 2,
        *,
        padding: Factor = 0,
        flip_filter: bool = False,
        gain: float = 1,
    ) -> None:
        super().__init__(filter, padding=padding, flip_filter=flip_filter, gain=gain)
        self.down = _pair("Downsample2d", "down", down)

    def forward(self, x: Tensor) -> Tensor:
        return downsample2d(x, self.resample_filter, self.down, self.padding, self.flip_filter, self.gain)

    def extra_repr(self) -> str:
        return f"down={self.down}, {super().extra_repr()}"


def _upfirdn2d(
    name: str,
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    if x.dim() != 4:
        raise ValueError(f"{name} got images of shape {list(x.shape)}; expected [N, C, H, W]")
    if not x.is_floating_point():
        raise TypeError(f"{name} expects float32, float64, bfloat16 or float16 images, but got {x.dtype}")
    fw, fh = _taps(name, f)
    if f is not None and f.device != x.device:
        raise ValueError(f"{name} got a filter on {f.device} for images on {x.device}; move it with .to(x.device)")
    x0, x1, y0, y1 = padding
    width = (x.shape[3] * up[0] + x0 + x1 - fw) // down[0] + 1
    height = (x.shape[2] * up[1] + y0 + y1 - fh) // down[1] + 1
    if width < 1 or height < 1:
        raise ValueError(
            f"{name} of {x.shape[2]} x {x.shape[3]} images (height x width), up {list(up)}, padding {list(padding)}, a "
            f"{fh} x {fw} filter, down {list(down)} would be empty; pad more, or take a smaller filter"
        )
    if use_reference():
        return reference.upfirdn2d(x, f, up, down, padding, flip_filter, gain)
    y: Tensor = _op(x, f, up, down, (x0, y0), (width, height), flip_filter, float(gain))
    return y


def _taps(name: str, f: Tensor | None) -> tuple[int, int]:
    """(width, height) of a filter, which is checked."""
    if f is None:
        return 1, 1
    if not f.is_floating_point():
        raise TypeError(f"{name} expects a floating-point filter, but got {f.dtype}; setup_filter makes one")
    if f.dim() not in (1, 2) or 0 in f.shape:
        raise ValueError(f"{name} got a filter of shape {list(f.shape)}; expected [n] (separable) or [fh, fw]")
    if f.requires_grad:
        raise ValueError(f"{name} got a filter that requires grad, which it has no gradient for; pass f.detach()")
    return reference.taps(f)


def _pair(name: str, what: str, value: Factor) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or pair[0] < 1 or pair[1] < 1:
        raise ValueError(f"{name} got {what}={value}; expected a factor of at least 1, or two, [x, y]")
    return pair[0], pair[1]


def _padding(name: str, value: Factor) -> tuple[int, int, int, int]:
    p = (value,) if isinstance(value, int | torch.SymInt) else tuple(value)
    if len(p) == 1:
        return p[0], p[0], p[0], p[0]
    if len(p) == 2:
        return p[0], p[0], p[1], p[1]
    if len(p) != 4:
        raise ValueError(f"{name} got padding={value}; expected one number, [x, y] or [x0, x1, y0, y1]")
    return p[0], p[1], p[2], p[3]
