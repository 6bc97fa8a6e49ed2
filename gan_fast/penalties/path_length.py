"""Path length regularisation. Source: Karras et al. 2020."""

from __future__ import annotations

from torch import nn


class PathLengthPenalty(nn.Module):
    """Path length regularisation."""
