"""Points as one float32 tensor `[N, D]`, as they are: no scaling, no mirroring."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from gan_fast.data.errors import DataError
from gan_fast.data.splits import subset
from gan_fast.data.toy import TOYS, Toy

# Of a toy distribution. So many that a critic cannot tell the set from its distribution.
_TRAIN, _TEST = 100_000, 10_000
_TRAIN_SEED, _TEST_SEED = 0, 1


class PointDataset:
    """Points in memory.

    Attributes:
        points: float32 `[N, D]`.
        toy: the distribution they were drawn from, or None where it is not known.
        name: what a person calls the data.
        split: "train", "test" or "all".
    """

    def __init__(
        self,
        points: Tensor,
        *,
        toy: Toy | None = None,
        name: str = "points",
        split: str = "train",
        held_out: PointDataset | None = None,
        fingerprint: str | None = None,
    ) -> None:
        if points.dtype != torch.float32 or points.ndim != 2 or not len(points):
            raise DataError(f"points must be float32 [N, D], at least one; got {points.dtype} {list(points.shape)}")
        if not points.isfinite().all():
            raise DataError("points must be finite; some are infinite or NaN")
        self.points = points
        self.toy = toy
        self.name = name
        self.split = split
        self.held_out = held_out
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return self.points.shape[0]

    def __repr__(self) -> str:
        return f"PointDataset({self.name!r}, {self.split}, {len(self)} points of {self.points.shape[1]})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: `(D,)`."""
        return tuple(self.points.shape[1:])

    @property
    def fingerprint(self) -> str:
        """sha256: equal for equal content. Of a toy distribution it names the draw, not its bits, which may differ in
        the last place between processors."""
        if self._fingerprint is None:
            digest = hashlib.sha256(repr(tuple(self.points.shape)).encode())
            digest.update(self.points.contiguous().numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def float_batch(
        self,
        indices: Tensor,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        *,
        flip: Tensor | None = None,
    ) -> Tensor:
        """Points `[B, D]` for int64 `indices` `[B]`, as `ImageDataset.float_batch`; they have no mirror image."""
        if flip is not None:
            raise DataError(f"{self.name} holds points, which cannot be mirrored: train without flip")
        return self.points[indices].to(device, dtype, non_blocking=True)


def load_toy(name: str, split: str, limit: int | None) -> PointDataset:
    """100,000 points to train on and 10,000 held out, drawn anew at every call, always the same."""
    toy = TOYS[name]
    parts = {"train": [(_TRAIN, _TRAIN_SEED)], "test": [(_TEST, _TEST_SEED)]}
    parts["all"] = parts["train"] + parts["test"]
    points = torch.cat([toy.draw(count, seed)[0] for count, seed in parts[split]])
    points = points[subset(len(points), limit)]
    identity = hashlib.sha256(f"{name} v1 {split} {len(points)}".encode()).hexdigest()
    held_out = load_toy(name, "test", limit) if split == "train" else None
    return PointDataset(points, toy=toy, name=name, split=split, held_out=held_out, fingerprint=identity)
