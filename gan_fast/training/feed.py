"""Endless batches of real samples on the device, from a data set of gan_fast, any map-style data set, or a loader.

A sample is an image `[C, H, W]`, two of them, `[2 C, H, W]`, a point `[D]` or a sound `[1, T]`; a feed's `shape` says
which, and its `classes` how many kinds of sample are labelled, 0 without labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from gan_fast.data import BatchSampler, ImageDataset, PairDataset, PointDataset, SoundDataset
from gan_fast.training.distributed import World

_OURS = (ImageDataset, PairDataset, PointDataset, SoundDataset)


class Feed(Protocol):
    """What the trainer asks of its data."""

    shape: tuple[int, ...]
    classes: int

    def next(self) -> Any:
        """A batch: samples, or samples and labels."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def _is_dataset(data: Any) -> bool:
    return isinstance(data, _OURS) or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))


def shape_of(data: Any) -> tuple[int, ...]:
    """Of one sample of whatever `Trainer(data=...)` was given."""
    if isinstance(data, _OURS):
        return data.shape
    cpu = torch.device("cpu")
    if _is_dataset(data):
        return tuple(to_samples(data[0], cpu, batched=False).shape[1:])
    if isinstance(data, Iterable):
        first = next(iter(data), None)
        if first is None:
            raise ValueError("the loader gives no batch")
        return tuple(to_samples(first, cpu).shape[1:])
    raise ValueError(
        "data must be an ImageDataset, a PointDataset, a data set with len() and [], or an iterable of batches, "
        f"got {type(data).__name__}"
    )


def make(data: Any, *, batch: int, seed: int, flip: bool, device: torch.device, world: World, labels: bool) -> Feed:
    """The feed for whatever `Trainer(data=...)` was given; with `labels`, its batches hold labels too."""
    shape = shape_of(data)
    classes = len(getattr(data, "classes", ())) if labels else 0
    if labels and not classes:
        raise ValueError(
            f"{getattr(data, 'name', type(data).__name__)} has no classes to train on: put the images of each class in "
            "a folder of their own, lay a labels.csv beside them, or train without labels"
        )
    if (isinstance(data, PairDataset) or _is_dataset(data)) and batch % world.size:
        raise ValueError(f"batch must be a multiple of the {world.size} processes, got {batch}")
    if isinstance(data, PairDataset):
        return PairFeed(data, batch, seed, flip, device, world)
    if _is_dataset(data):
        crop = isinstance(data, SoundDataset)
        sampler = BatchSampler(len(data), batch, seed, rank=world.rank, world=world.size, flip=flip, crop=crop)
        return DatasetFeed(data, sampler, device, shape, classes)
    return LoaderFeed(data, device, shape, classes)


class DatasetFeed:
    """Batches of a data set in the sampler's order, whose position is two integers."""

    def __init__(
        self, data: Any, sampler: BatchSampler, device: torch.device, shape: tuple[int, ...], classes: int
    ) -> None:
        self.data = data
        self.sampler = sampler
        self.device = device
        self.ours = isinstance(data, _OURS)
        self.shape, self.classes = shape, classes
        if sampler.flip and len(self.shape) < 3:
            kind = "points" if len(self.shape) == 1 else "sounds"
            raise ValueError(f"flip mirrors images, and the data given holds {kind}: train without it")

    def next(self) -> Any:
        batch = next(self.sampler)
        if self.ours:
            where = {} if batch.crop is None else {"crop": batch.crop}
            own = self.data.float_batch(batch.indices, self.device, flip=batch.flip, **where)
            return (own, self.data.label_batch(batch.indices, self.device)) if self.classes else own
        items = [self.data[i] for i in batch.indices.tolist()]
        samples = torch.cat([to_samples(item, self.device, batched=False) for item in items])
        if batch.flip is not None:
            samples = torch.where(batch.flip.to(samples.device).view(-1, 1, 1, 1), samples.flip(3), samples)
        if not self.classes:
            return samples
        return samples, torch.tensor([int(label_of(item)) for item in items], device=self.device)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"kind": "dataset", "sampler": self.sampler.state_dict()}
        if self.ours:
            state["fingerprint"] = self.data.fingerprint
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["kind"] != "dataset":
            raise ValueError("the run was fed by a loader: resume it with data=, the loader it began with")
        if self.ours and state.get("fingerprint", self.data.fingerprint) != self.data.fingerprint:
            raise ValueError(
                f"{self.data.name} no longer holds the samples this run began with (their fingerprint differs): "
                "restore them, or start a new run"
            )
        self.sampler.load_state_dict(state["sampler"])


class PairFeed:
    """Pictures of two kinds, each in an order of its own, or of aligned ones the same order."""

    classes = 0

    def __init__(
        self, data: PairDataset, batch: int, seed: int, flip: bool, device: torch.device, world: World
    ) -> None:
        self.data, self.device, self.shape = data, device, data.shape
        sides = [data.a] if data.aligned else [data.a, data.b]
        self.samplers = [
            BatchSampler(len(side), batch, seed + i, rank=world.rank, world=world.size, flip=flip)
            for i, side in enumerate(sides)
        ]

    def next(self) -> Tensor:
        of_a = next(self.samplers[0])
        of_b = of_a if self.data.aligned else next(self.samplers[1])
        return self.data.float_batch(of_a.indices, of_b.indices, self.device, flip_a=of_a.flip, flip_b=of_b.flip)

    def state_dict(self) -> dict[str, Any]:
        samplers = [sampler.state_dict() for sampler in self.samplers]
        return {"kind": "pairs", "samplers": samplers, "fingerprint": self.data.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["kind"] != "pairs" or state["fingerprint"] != self.data.fingerprint:
            raise ValueError(
                f"{self.data.name} no longer holds the pictures this run began with (their fingerprint differs): "
                "restore them, or start a new run"
            )
        for sampler, saved in zip(self.samplers, state["samplers"], strict=True):
            sampler.load_state_dict(saved)


class LoaderFeed:
    """Batches of a loader, started again whenever it ends.

    The order is the loader's own. Its position is saved where the loader has `state_dict` and `load_state_dict`
    (torchdata's StatefulDataLoader does); otherwise a resumed run goes on with the loader's first batch.
    """

    def __init__(self, loader: Iterable[Any], device: torch.device, shape: tuple[int, ...], classes: int) -> None:
        self.loader = loader
        self.device = device
        self.shape, self.classes = shape, classes
        self._batches: Iterator[Any] = iter(())

    def next(self) -> Any:
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self.loader)
            batch = next(self._batches, None)
            if batch is None:
                raise ValueError(
                    "the loader gives no more batches: it can be read only once; give a loader that can be restarted"
                )
        samples = to_samples(batch, self.device)
        return (samples, label_of(batch)) if self.classes else samples

    def state_dict(self) -> dict[str, Any]:
        save = getattr(self.loader, "state_dict", None)
        return {"kind": "loader", "loader": save() if save is not None else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["kind"] != "loader":
            raise ValueError("the run was fed by a data set: resume it with that data set, not with a loader")
        if state["loader"] is not None and hasattr(self.loader, "load_state_dict"):
            self.loader.load_state_dict(state["loader"])


def to_samples(batch: Any, device: torch.device, *, batched: bool = True) -> Tensor:
    """The samples of a batch, fp32 on `device`: images `[N, C, H, W]` in [-1, 1], or points `[N, D]` and sounds
    `[N, 1, T]` as they are.

    A batch is a tensor, or a tuple, list or dict that holds one first. Bytes are scaled; floating point is taken as it
    is. With `batched=False`, one sample becomes a batch.
    """
    if isinstance(batch, dict):
        batch = next(iter(batch.values()))
    while isinstance(batch, (tuple, list)):
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise ValueError(f"a batch must be a tensor of images or hold one first, got {type(batch).__name__}")
    samples = batch if batched else batch[None]
    sound = samples.ndim == 3 and samples.shape[1] == 1
    if samples.ndim not in (2, 4) and not sound:
        raise ValueError(
            f"samples must be points, [N, D], images, [N, C, H, W], or sounds, [N, 1, T], got {list(samples.shape)}"
        )
    samples = samples.to(device, non_blocking=True)
    if samples.dtype == torch.uint8 and samples.ndim == 4:
        return samples.to(torch.float32).div_(127.5).sub_(1.0)
    if not samples.is_floating_point():
        raise ValueError(
            f"images must be bytes, or floating point in [-1, 1], sounds and points floating point, got {batch.dtype}"
        )
    return samples.to(torch.float32)


def label_of(batch: Any) -> Any:
    """What stands second in a batch, or in a sample: its label."""
    values = list(batch.values()) if isinstance(batch, dict) else batch
    if not isinstance(values, (tuple, list)) or len(values) < 2:
        raise ValueError(f"labels must stand second, (images, labels), got a {type(batch).__name__} without them")
    return values[1]


def to_one_hot(labels: Any, classes: int, device: torch.device) -> Tensor:
    """fp32 `[N, classes]` on `device`, from whole numbers `[N]`, or as it is if it has that shape."""
    labels = torch.as_tensor(labels).to(device, non_blocking=True)
    if labels.ndim == 2 and labels.shape[1] == classes and labels.is_floating_point():
        return labels.float()
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(f"labels must be whole numbers [N] or [N, {classes}], got {labels.dtype} {list(labels.shape)}")
    return (labels[:, None] == torch.arange(classes, device=device)).float()
