"""Differentiable augmentations, `[N, 3, H, W]` to the same: each sample its own draw (ADA, DiffAugment), or fixed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops


def ada(x: Tensor) -> Tensor:
    """Flip, scale, turn and shift by bilinear sampling, then a colour matrix. Source: Karras et al. 2020."""
    n = len(x)
    flip = torch.randint(0, 2, (n,), dtype=x.dtype) * 2 - 1
    scale, angle = torch.exp(0.2 * torch.randn(n, dtype=x.dtype)), 0.3 * torch.randn(n, dtype=x.dtype)
    shift = 0.2 * torch.randn(n, 2, dtype=x.dtype)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cosine * flip, -sine, shift[:, 0]], 1), torch.stack([sine * flip, cosine, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    x = ops.grid_sample(x, grid)  # twice differentiable on every torch
    colour = torch.eye(3, dtype=x.dtype) + 0.2 * torch.randn(n, 3, 3, dtype=x.dtype)
    return torch.einsum("nij,njhw->nihw", colour, x) + 0.1 * torch.randn(n, 3, 1, 1, dtype=x.dtype)


def diff_augment(x: Tensor) -> Tensor:
    """Brightness, contrast about each image's mean, translation and cutout. Source: Zhao et al. 2020."""
    n, _, h, w = x.shape
    x = x + torch.rand(n, 1, 1, 1, dtype=x.dtype) - 0.5
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * (torch.rand(n, 1, 1, 1, dtype=x.dtype) + 0.5) + mean
    down, right = (torch.randint(-1, 2, (n, 1, 1)) for _ in range(2))
    sample = torch.arange(n)[:, None, None]
    row = (torch.arange(h)[None, :, None] + down + 1).clamp(0, h + 1)
    column = (torch.arange(w)[None, None, :] + right + 1).clamp(0, w + 1)
    x = F.pad(x, [1, 1, 1, 1]).permute(0, 2, 3, 1)[sample, row, column].permute(0, 3, 1, 2)
    top, left = (torch.randint(0, h // 2, (n, 1, 1)) for _ in range(2))
    rows, columns = torch.arange(h)[None, :, None], torch.arange(w)[None, None, :]
    hole = (rows >= top) & (rows < top + h // 2) & (columns >= left) & (columns < left + w // 2)
    return x * (~hole)[:, None].to(x.dtype)


def fixed_warp(x: Tensor) -> Tensor:
    """The same turn and shift for every image; by torch's own sampling where that is twice differentiable."""
    matrix = torch.tensor([[0.9, -0.3, 0.1], [0.3, 0.9, -0.05]], dtype=x.dtype)
    grid = F.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    if torch.__version__ < "2.14":  # 2.11 is known not to be
        return ops.grid_sample(x, grid)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def smooth_colour(x: Tensor) -> Tensor:
    """Not linear in the image: a gamma-like curve and a normalisation of each image."""
    x = torch.tanh(0.7 * x) + 0.1 * x**2
    return x / (x.square().mean((1, 2, 3), keepdim=True) + 0.1).sqrt()


def mixup(x: Tensor) -> Tensor:
    """Each image with a tenth of the next one: it mixes samples."""
    return 0.9 * x + 0.1 * x.roll(1, 0)
