"""Tables of mixed styles: picture (i, j) has the styles of row i, and in the chosen layers those of column j.

Early layers carry shape, late ones colour and texture. Source: Karras et al. 2019 (StyleGAN), section 3.1 and figure 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gan_fast.editing.directions import checked_layers
from gan_fast.models.stylegan2 import Generator


@torch.no_grad()
def style_mix(
    generator: Generator, rows: Tensor, columns: Tensor, layers: Iterable[int], *, batch: int = 16, **synthesis: Any
) -> Tensor:
    """Images `[R, C, channels, H, H]` of every row's styles with `layers` from every column.

    Args:
        rows, columns: styles `[R, num_ws, w_dim]` and `[C, num_ws, w_dim]`, from `generator.mapping`.
        layers: which styles come from the columns: indices from 0 to num_ws - 1.
        batch: pictures made at a time.
        synthesis: passed to `generator.synthesis`; noise_mode "const" unless it says otherwise.
    """
    expected = (generator.num_ws, generator.w_dim)
    for name, ws in (("rows", rows), ("columns", columns)):
        if ws.dim() != 3 or tuple(ws.shape[1:]) != expected or len(ws) == 0:
            raise ValueError(f"{name} must be styles [N, {expected[0]}, {expected[1]}], got {list(ws.shape)}")
    chosen = list(checked_layers(generator, layers))
    mixed = rows[:, None].repeat(1, len(columns), 1, 1)
    mixed[:, :, chosen] = columns[None, :, chosen].to(mixed)
    settings = {"noise_mode": "const", **synthesis}
    images = [generator.synthesis(part, **settings) for part in mixed.flatten(0, 1).split(batch)]
    return torch.cat(images).unflatten(0, (len(rows), len(columns)))
