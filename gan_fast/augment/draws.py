"""Random numbers for one process's rows of a batch that several share.

Every rank draws the numbers of the whole batch from the same stream and keeps its own rows, so that image k of a step
is augmented alike however many processes there are.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """`uniform(*shape)` and `normal(*shape)`: fp32 `[count, *shape]`, rows rank * count and on of world * count."""

    def __init__(
        self,
        count: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.count = count
        self.device = device
        self.generator = generator
        self.rank, self.world = share

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1)."""
        return self._mine(torch.rand(self.count * self.world, *shape, generator=self.generator, device=self.device))

    def normal(self, *shape: int) -> Tensor:
        """N(0, 1)."""
        return self._mine(torch.randn(self.count * self.world, *shape, generator=self.generator, device=self.device))

    def _mine(self, everyone: Tensor) -> Tensor:
        return everyone[self.rank * self.count :][: self.count]


def working(images: Tensor) -> Tensor:
    """In the dtype that augmentations compute in: fp64 as it is, fp32 for all others."""
    return images if images.dtype == torch.float64 else images.float()


def check_images(name: str, images: Tensor, channels: tuple[int, ...] | None = None) -> None:
    """Raises ValueError or TypeError for anything but floating-point `[N, C, H, W]`, C one of `channels`."""
    if images.ndim != 4:
        raise ValueError(f"{name} got shape {list(images.shape)}, expected images [N, C, H, W]")
    if not images.is_floating_point():
        raise TypeError(f"{name} got {images.dtype}, expected floating-point images in [-1, 1]")
    if channels is not None and images.shape[1] not in channels:
        raise ValueError(
            f"{name} got {images.shape[1]} channels, its colour transforms are for {' or '.join(map(str, channels))}: "
            "leave them out of the policy"
        )
