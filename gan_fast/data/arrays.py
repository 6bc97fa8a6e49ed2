"""From a whole uint8 tensor to the resolution and channels asked for (built-in data; files go through Pillow).

smaller: mean over k x k boxes;   larger: bicubic;   1 -> 3 channels: repeat;   3 -> 1: ITU-R 601 luma
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.data.errors import DataError

LUMA = (0.299, 0.587, 0.114)


def check_resolution(resolution: int) -> None:
    if resolution < 8 or resolution & (resolution - 1):
        raise DataError(f"resolution must be a power of two from 8; got {resolution}")


def check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise DataError(f"channels must be 1 (grey) or 3 (RGB); got {channels}")


def resize(images: Tensor, resolution: int) -> Tensor:
    """uint8 `[N, C, H, H]` to uint8 `[N, C, resolution, resolution]`; both sizes powers of two."""
    check_resolution(resolution)
    size = images.shape[-1]
    if resolution == size or len(images) == 0:
        return images.new_zeros(0, images.shape[1], resolution, resolution) if len(images) == 0 else images
    pieces = []
    for chunk in images.split(1024):
        x = chunk.float()
        if resolution < size:
            x = F.avg_pool2d(x, size // resolution)
        else:
            x = F.interpolate(x, size=(resolution, resolution), mode="bicubic", align_corners=False)
        pieces.append(x.round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(pieces)


def to_channels(images: Tensor, channels: int) -> Tensor:
    check_channels(channels)
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    return torch.cat([(c.float() * weights).sum(1, keepdim=True).round_().to(torch.uint8) for c in images.split(1024)])
