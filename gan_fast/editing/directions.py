"""Directions in style space that change the picture most, found in the weights alone.

    style of a layer  s = A w + b,     so w + a n changes s by a A n;     n_1, n_2, ... maximise |A n|, orthonormal:
    A^T A n_k = lambda_k n_k           A: the style weights of all chosen layers, one below the other

No training, no samples, no labels; what a direction means (pose, colour, age) is for the eye to find out.
Source: Shen and Zhou, "Closed-Form Factorization of Latent Semantics in GANs", 2021.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan_fast.models.stylegan2 import Generator


class Directions(NamedTuple):
    """vectors: `[K, w_dim]`, orthonormal, the strongest first. strengths: `[K]`, |A n|. layers: which were read."""

    vectors: Tensor
    strengths: Tensor
    layers: tuple[int, ...]


def style_layers(generator: Generator) -> list[nn.Module]:
    """The layer that each of the `num_ws` styles goes to. A toRGB between two layers shares the next one's style."""
    found: list[nn.Module] = []
    blocks = [getattr(generator.synthesis, f"b{side}") for side in generator.synthesis.block_resolutions]
    for block in blocks:
        found += [block.conv1] if block.num_conv == 1 else [block.conv0, block.conv1]
    return [*found, blocks[-1].torgb]


def checked_layers(generator: Generator, layers: Iterable[int] | None) -> tuple[int, ...]:
    """Sorted indices of styles; None is all. ValueError for any that the generator lacks, and for none."""
    chosen = tuple(range(generator.num_ws)) if layers is None else tuple(sorted(set(layers)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= generator.num_ws:
        raise ValueError(f"layers must be among 0 to {generator.num_ws - 1} of this generator, got {list(chosen)}")
    return chosen


@torch.no_grad()
def edit_directions(generator: Generator, layers: Iterable[int] | None = None, count: int | None = None) -> Directions:
    """The `count` strongest directions of the chosen layers (default: all of each).

    Early layers (0 to 3 or so) hold shape and pose, late ones colour and texture. Each vector has its largest entry
    positive, so that the same weights give the same signs everywhere.
    """
    chosen = checked_layers(generator, layers)
    if count is not None and not 1 <= count <= generator.w_dim:
        raise ValueError(f"count must be between 1 and {generator.w_dim}, the length of w, got {count}")
    modules = style_layers(generator)
    affines = [getattr(modules[index], "affine") for index in chosen]  # noqa: B009 (a Module's attributes are untyped)
    stacked = torch.cat([(affine.weight * affine.weight_gain).double() for affine in affines])
    values, vectors = torch.linalg.eigh(stacked.t() @ stacked)
    vectors = vectors.flip(1).t()[:count]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * largest.sign()
    strengths = values.flip(0).clamp(min=0).sqrt()[:count]
    dtype = affines[0].weight.dtype
    return Directions(vectors.to(dtype), strengths.to(dtype), chosen)


def move(ws: Tensor, direction: Tensor, amount: float | Tensor, layers: Iterable[int] | None = None) -> Tensor:
    """w + amount n on the chosen layers of `[N, num_ws, w_dim]`; `amount` is a number or `[N]`, `direction` `[w_dim]`.

    A usual amount is 1 to 10, in the units of w. Move the layers that the direction was found in.
    """
    if ws.dim() != 3 or direction.shape != ws.shape[2:]:
        raise ValueError(
            f"move got styles {list(ws.shape)} and a direction {list(direction.shape)}, expected [N, num_ws, w_dim] "
            "and [w_dim]"
        )
    chosen = list(range(ws.shape[1])) if layers is None else sorted(set(layers))
    if chosen and not 0 <= chosen[0] <= chosen[-1] < ws.shape[1]:
        raise ValueError(f"layers must be among 0 to {ws.shape[1] - 1}, got {chosen}")
    where = torch.zeros(ws.shape[1], 1, dtype=ws.dtype, device=ws.device)
    where[chosen] = 1
    amounts = torch.as_tensor(amount, dtype=ws.dtype, device=ws.device).reshape(-1, 1, 1)
    return ws + amounts * where * direction.to(ws)
