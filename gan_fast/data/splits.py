"""Which images are held out: a fixed, stratified share, a function of the labels alone."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast.data.errors import DataError

SPLITS = ("train", "test", "all")
# Below this many images holding some out costs more than it tells: everything trains.
FEWEST_TO_SPLIT = 500


def stratified(labels: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices (train, test), each ascending: `share` of every class, rounded, goes to test."""
    generator = torch.Generator().manual_seed(seed)
    test = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        test.append(members[order[: round(share * len(members))]])
    held = torch.cat(test).sort().values
    keep = torch.ones(len(labels), dtype=torch.bool)
    keep[held] = False
    return keep.nonzero().flatten(), held


def held_out_share(count: int) -> float:
    """Of a folder, a zip or a packed file: a tenth, at most 5,000 images; none of fewer than 500."""
    return 0.0 if count < FEWEST_TO_SPLIT else min(0.1, 5000 / count)


def default_split(count: int, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Indices (train, test) of a folder, a zip or a packed file that comes with no split of its own."""
    share = held_out_share(count)
    if share == 0.0:
        return torch.arange(count), torch.arange(0)
    return stratified(torch.zeros(count, dtype=torch.int64) if labels is None else labels, share)


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")


def subset(count: int, limit: int | None, seed: int = 0) -> Tensor:
    """`limit` of `count` indices, drawn once and for all, ascending; all of them without a limit."""
    if limit is None or limit >= count:
        return torch.arange(count)
    if limit < 1:
        raise DataError(f"limit must be at least 1; got {limit}")
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit].sort().values
