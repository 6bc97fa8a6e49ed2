"""Layers that let a critic see its batch."""

from __future__ import annotations

from torch import Tensor, nn


class MinibatchStdDev(nn.Module):
    """A channel with the standard deviation over the batch. Source: Karras et al. 2018."""

    def forward(self, x: Tensor) -> Tensor:
        deviation = x.std(0, unbiased=False).mean().expand(len(x), 1, *x.shape[2:])
        import torch

        return torch.cat([x, deviation], 1)


class MinibatchDiscrimination(nn.Module):
    """Distances to the other samples of the batch. Source: Salimans et al. 2016."""
