"""Moving pixels: images seen through a matrix, with reflected borders and without aliasing.

    y(c) = x(G^-1 c)        c in pixels from the centre of the image

    reflect -> twice the size by sym6 -> bilinear look-up at G^-1 c -> half the size by sym6 mirrored

Up and down alone are the identity, so a matrix that moves nothing changes nothing. Where G^-1 c leaves the image it is
reflected at the outermost pixels, as often as needed: the cost and the shapes do not depend on what was drawn.
Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B, which pads by as
much as the matrices of the batch ask for instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops
from gan_fast.augment.wavelets import SYM6

# Half of the filter's twelve taps, in pixels of the image: what the way back reads beyond the border.
_BEYOND = 3
# And what the way up needs to make that, with a pixel more for the bilinear look-up.
_REFLECTED = 2 * _BEYOND + 1
# The filter delays by this much more than the half pixel that the sizes imply. sym6 is only nearly symmetric.
_DELAY = (sum(k * h for k, h in enumerate(SYM6)) / sum(SYM6) - 5.5) / 2
SMALLEST = _REFLECTED + 1


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """`[N, 3, 3]` of factors `[N]`."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _stack(x, zero, zero, zero, y, zero, zero, zero, one)


def rotation(angle: Tensor) -> Tensor:
    """`[N, 3, 3]` of angles `[N]`, from the first axis to the second."""
    zero, one, c, s = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    return _stack(c, -s, zero, s, c, zero, zero, zero, one)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """`[N, 3, 3]` of shifts `[N]`."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _stack(one, zero, x, zero, one, y, zero, zero, one)


def _stack(*entries: Tensor) -> Tensor:
    return torch.stack(entries, 1).unflatten(1, (3, 3))


def resample(images: Tensor, inverse: Tensor, filter_: Tensor) -> Tensor:
    """`[N, C, H, W]` seen through `inverse` `[N, 3, 3]`, which takes places in the result to places in the image.

    Places are in pixels from the centre, fp32 or fp64 like the images. `filter_` is `ops.setup_filter(SYM6)` on the
    images' device. H and W are at least 8.
    """
    height, width = images.shape[2:]
    fine = ops.upsample2d(F.pad(images, [_REFLECTED] * 4, mode="reflect"), filter_)
    x = _positions(width, inverse)[None, :].expand(2 * (height + 2 * _BEYOND), -1)
    y = _positions(height, inverse)[:, None].expand(-1, 2 * (width + 2 * _BEYOND))
    points = torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1)
    found = (points @ inverse[:, :2].transpose(1, 2)).unflatten(1, x.shape)
    sides = [(width, found[..., 0]), (height, found[..., 1])]
    # grid_sample's coordinates: -1 and 1 are the borders of what it is given.
    grid = torch.stack([2 * (_reflect(c, size) + _DELAY) / (size + 2 * _REFLECTED) for size, c in sides], -1)
    return ops.downsample2d(ops.grid_sample(fine, grid), filter_, padding=-2 * _BEYOND, flip_filter=True)


def _positions(size: int, like: Tensor) -> Tensor:
    """Of the half pixels of a line of `size` pixels and `_BEYOND` more on each side, from its centre."""
    count = 2 * (size + 2 * _BEYOND)
    return (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5 - count / 2) / 2 - _DELAY


def _reflect(c: Tensor, size: int) -> Tensor:
    """Positions from the centre of `size` pixels, brought inside by reflection at the centres of the outermost ones.

    As far as the image was reflected before its size was doubled there is nothing to do: that keeps the identity exact,
    for reflection and an asymmetric filter do not quite commute.
    """
    last = float(size - 1)
    folded = last - ((c + last / 2).remainder(2 * last) - last).abs() - last / 2
    return torch.where(c.abs() <= size / 2 + _BEYOND, c, folded)
