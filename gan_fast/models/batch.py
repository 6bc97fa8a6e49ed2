"""What critics of one logit a sample may put before their last layer to see the variety of a batch.

features [N, C, *] -> MinibatchStdDev -> [N, C + 1, *] -> flattened -> MinibatchDiscrimination -> [N, C' + kernels]

Either of the two, both, or none. A critic that has one mixes the samples of its batch.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from gan_fast.penalties import MinibatchDiscrimination, MinibatchStdDev

# Salimans et al. 2016: the C of their networks for images.
_KERNEL_DIM = 5


class BatchLayers(NamedTuple):
    """stddev: samples in a group of `MinibatchStdDev`; discrimination: kernels of `MinibatchDiscrimination`."""

    stddev: int = 0
    discrimination: int = 0

    @property
    def flattens(self) -> bool:
        """Whether `make`'s layers end on `[N, features]`."""
        return self.discrimination > 0

    def make(self, channels: int, places: int = 1) -> tuple[list[nn.Module], int]:
        """The layers for feature maps of `channels` at `places` pixels each, and the channels, or features, after."""
        deviation, channels = self.make_stddev(channels)
        if not self.flattens:
            return deviation, channels
        closeness, features = self.make_discrimination(channels * places)
        return [*deviation, nn.Flatten(), *closeness], features

    def make_stddev(self, channels: int) -> tuple[list[nn.Module], int]:
        return ([MinibatchStdDev(self.stddev)], channels + 1) if self.stddev else ([], channels)

    def make_discrimination(self, features: int) -> tuple[list[nn.Module], int]:
        if not self.discrimination:
            return [], features
        layer = MinibatchDiscrimination(features, self.discrimination, _KERNEL_DIM)
        return [layer], features + self.discrimination


def check_packing(packing: int) -> None:
    """Raises ValueError for fewer than one sample in a pack."""
    if isinstance(packing, bool) or not isinstance(packing, int) or packing < 1:
        raise ValueError(f"packing must be a positive whole number of samples, got {packing!r}")
