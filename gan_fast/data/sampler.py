"""An endless, resumable order of samples.

Sample number k of a run is image p_e[k mod n], where e = k div n and p_e is the permutation of epoch e, a function
of (seed, e) alone. Batch b holds samples b*batch .. (b+1)*batch - 1; of them rank r of w takes its own consecutive
1/w. So the stream does not depend on how many processes share it, a batch may span two epochs, n may be smaller
than a batch, and the position is two integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """indices: int64 `[B]` into the data set. flip: bool `[B]`, which to mirror, or None. crop: fp64 `[B]` in [0, 1),
    which part of each to take, or None."""

    indices: Tensor
    flip: Tensor | None
    crop: Tensor | None = None


class BatchSampler:
    """Draws `Batch`es for ever.

    Args:
        n: images in the data set.
        batch: images per step over all ranks.
        seed: of the order and of the flips.
        rank, world: this process and how many there are; `world` divides `batch`.
        flip: mirror each sample with probability 1/2, drawn by sample number so that it resumes exactly.
        crop: say for each sample which part of it to take, drawn in the same way.
    """

    def __init__(
        self,
        n: int,
        batch: int,
        seed: int = 0,
        *,
        rank: int = 0,
        world: int = 1,
        flip: bool = False,
        crop: bool = False,
    ) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1 image; got {n}")
        if batch < 1 or batch % world:
            raise ValueError(f"batch must be a positive multiple of the {world} processes; got {batch}")
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in 0..{world - 1}; got {rank}")
        self.n, self.batch, self.seed, self.rank, self.world, self.flip = n, batch, seed, rank, world, flip
        self.crop = crop
        self.epoch, self.offset = 0, 0
        self._epochs: dict[int, Batch] = {}

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        share = self.batch // self.world
        start = self.epoch * self.n + self.offset
        mine = self._samples(start + self.rank * share, share)
        self.epoch, self.offset = divmod(start + self.batch, self.n)
        for old in [epoch for epoch in self._epochs if epoch < self.epoch]:
            del self._epochs[old]
        return mine

    def _samples(self, start: int, count: int) -> Batch:
        pieces = []
        while count > 0:
            epoch, offset = divmod(start, self.n)
            whole = self._epoch(epoch)
            taken = slice(offset, min(offset + count, self.n))
            flip, crop = (None if part is None else part[taken] for part in whole[1:])
            pieces.append(Batch(whole.indices[taken], flip, crop))
            start, count = start + taken.stop - taken.start, count - (taken.stop - taken.start)
        flips = [piece.flip for piece in pieces if piece.flip is not None]
        crops = [piece.crop for piece in pieces if piece.crop is not None]
        indices = torch.cat([piece.indices for piece in pieces])
        return Batch(indices, torch.cat(flips) if flips else None, torch.cat(crops) if crops else None)

    def _epoch(self, epoch: int) -> Batch:
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
            indices = torch.randperm(self.n, generator=generator)
            flip = torch.rand(self.n, generator=generator) < 0.5 if self.flip else None
            crop = torch.rand(self.n, generator=generator, dtype=torch.float64) if self.crop else None
            self._epochs[epoch] = Batch(indices, flip, crop)
        return self._epochs[epoch]

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "epoch": self.epoch, "offset": self.offset, "n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`. The number of images must be the same; batch and world may differ."""
        if int(state["n"]) != self.n:
            raise ValueError(
                f"the saved position is in {state['n']} images but the data now has {self.n}: "
                "resume with the data the run began with"
            )
        self.seed, self.epoch, self.offset = int(state["seed"]), int(state["epoch"]), int(state["offset"])
        self._epochs = {}


def _mix(seed: int, epoch: int) -> int:
    """One 63-bit seed from two integers (splitmix64's finaliser), so that (0, 1) and (1, 0) share nothing."""
    mask = (1 << 64) - 1
    x = (seed * 0x9E3779B97F4A7C15 + epoch * 0xD1342543DE82EF95 + 0x632BE59BD9B4E019) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) >> 1
