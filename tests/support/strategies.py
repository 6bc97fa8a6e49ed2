"""Hypothesis strategies for what an op may be handed: shapes, values and memory layouts.

Values come from a seeded generator and not element by element: shrinking then works on shape, layout and seed, and an
example costs microseconds.
"""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "strided", "expanded")
VALUES = ("normal", "wide", "huge", "zeros", "ties", "mixed")


def lay_out(values: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout; gaps between them are NaN, so that a kernel that ignores strides shows.

    `expanded` repeats the first slice along the first axis (stride 0), the one layout that changes the values.
    `channels_last` is for [N, C, H, W] and [N, C, D, H, W]; other ranks stay contiguous.
    """
    if layout == "contiguous":
        return values.contiguous()
    if layout == "channels_last":
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        return values.contiguous(memory_format=formats.get(values.ndim, torch.contiguous_format))
    if layout == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1) if values.ndim > 1 else values.contiguous()
    if layout == "sliced":
        buffer = values.new_full([size + 3 for size in values.shape] or [3], torch.nan)
        view = buffer[tuple(slice(2, 2 + size) for size in values.shape)] if values.ndim else buffer[1]
        return view.copy_(values)
    if layout == "strided":
        if values.ndim == 0:
            return values.clone()
        buffer = values.new_full([*values.shape[:-1], 2 * values.shape[-1]], torch.nan)
        return buffer[..., ::2].copy_(values)
    if layout == "expanded":
        return values[:1].clone().expand(values.shape) if values.ndim and values.shape[0] else values.clone()
    raise ValueError(f"unknown layout {layout!r}; the layouts are {LAYOUTS}")


def draw_values(shape: tuple[int, ...], kind: str, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Values of one kind, rounded to `dtype`: `ties` are integers from -2 to 2 (kinks, equals), `huge` is +-1e4."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    signs = torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0
    if kind == "normal":
        values = 2 * normal
    elif kind == "wide":
        values = 40 * normal
    elif kind == "huge":
        values = 1e4 * signs.double()
    elif kind == "zeros":
        values = torch.zeros(shape, dtype=torch.float64) * signs
    elif kind == "ties":
        values = torch.randint(-2, 3, shape, generator=generator).double()
    elif kind == "mixed":
        choice = torch.randint(0, 4, shape, generator=generator)
        values = torch.where(choice == 0, 1e4 * signs, torch.where(choice == 1, normal.round(), 5 * normal))
    else:
        raise ValueError(f"unknown kind of values {kind!r}; the kinds are {VALUES}")
    return values.to(dtype)


def shapes(
    *, min_dims: int = 0, max_dims: int = 4, min_side: int = 1, max_side: int = 9
) -> st.SearchStrategy[tuple[int, ...]]:
    """Small shapes, odd and even, with sides of one."""
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


def counts(limit: int = 5000) -> st.SearchStrategy[int]:
    """Element counts around vector widths, block sizes and their tails."""
    edges = [n for n in (1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 255, 257, 1023, 1025, 4095, 4097) if n <= limit]
    return st.one_of(st.sampled_from(edges), st.integers(1, limit))


layouts = st.sampled_from(LAYOUTS)
value_kinds = st.sampled_from(VALUES)
seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from((torch.float64, torch.float32, torch.bfloat16, torch.float16))


@st.composite
def tensors(draw: st.DrawFn, shape: st.SearchStrategy[tuple[int, ...]] | tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of any kind of values in any layout."""
    size = shape if isinstance(shape, tuple) else draw(shape)
    return lay_out(draw_values(size, draw(value_kinds), draw(seeds), dtype), draw(layouts))
