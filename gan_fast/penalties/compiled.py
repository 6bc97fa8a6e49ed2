"""A whole critic step, penalty and backward included, in one compiled region."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def compile_step(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled."""
    return torch.compile(function)
