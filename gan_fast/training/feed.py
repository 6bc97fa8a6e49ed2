"""Endless batches of real images on the device, from a data set of gan_fast, any map-style data set, or a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from gan_fast.data import BatchSampler, ImageDataset
from gan_fast.training.distributed import World
from gan_fast.training.machine import Machine


class Feed(Protocol):
    """What the trainer asks of its data."""

    resolution: int
    channels: int

    def next(self) -> Tensor: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make(data: Any, *, batch: int, seed: int, flip: bool, machine: Machine, world: World) -> Feed:
    """The feed for whatever `Trainer(data=...)` was given."""
    if isinstance(data, ImageDataset) or (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        if batch % world.size:
            raise ValueError(f"batch must be a multiple of the {world.size} processes, got {batch}")
        return DatasetFeed(
            data, BatchSampler(len(data), batch, seed, rank=world.rank, world=world.size, flip=flip), machine
        )
    if isinstance(data, Iterable):
        return LoaderFeed(data, machine)
    raise ValueError(
        "data must be an ImageDataset, a data set with len() and [], or an iterable of batches, "
        f"got {type(data).__name__}"
    )


class DatasetFeed:
    """Batches of a data set in the sampler's order, whose position is two integers."""

    def __init__(self, data: Any, sampler: BatchSampler, machine: Machine) -> None:
        self.data = data
        self.sampler = sampler
        self.machine = machine
        if isinstance(data, ImageDataset):
            self.channels, self.resolution = data.channels, data.resolution
        else:
            first = to_images(data[0], machine, batched=False)
            self.channels, self.resolution = first.shape[1], first.shape[2]

    def next(self) -> Tensor:
        batch = next(self.sampler)
        if isinstance(self.data, ImageDataset):
            return self.data.float_batch(
                batch.indices, self.machine.device, memory_format=self.machine.memory_format, flip=batch.flip
            )
        images = torch.cat([to_images(self.data[i], self.machine, batched=False) for i in batch.indices.tolist()])
        if batch.flip is not None:
            images = torch.where(batch.flip.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
        return images.to(memory_format=self.machine.memory_format)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"kind": "dataset", "sampler": self.sampler.state_dict()}
        if isinstance(self.data, ImageDataset):
            state["fingerprint"] = self.data.fingerprint
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["kind"] != "dataset":
            raise ValueError("the run was fed by a loader: resume it with data=, the loader it began with")
        if (
            isinstance(self.data, ImageDataset)
            and state.get("fingerprint", self.data.fingerprint) != self.data.fingerprint
        ):
            raise ValueError(
                f"{self.data.name} no longer holds the images this run began with (their fingerprint differs): "
                "restore them, or start a new run"
            )
        self.sampler.load_state_dict(state["sampler"])


class LoaderFeed:
    """Batches of a loader, started again whenever it ends.

    The order is the loader's own. Its position is saved where the loader has `state_dict` and `load_state_dict`
    (torchdata's StatefulDataLoader does); otherwise a resumed run goes on with the loader's first batch.
    """

    def __init__(self, loader: Iterable[Any], machine: Machine) -> None:
        self.loader = loader
        self.machine = machine
        self._batches: Iterator[Any] = iter(())
        first = next(iter(loader), None)
        if first is None:
            raise ValueError("the loader gives no batch")
        images = to_images(first, machine)
        self.channels, self.resolution = images.shape[1], images.shape[2]

    def next(self) -> Tensor:
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self.loader)
            batch = next(self._batches, None)
            if batch is None:
                raise ValueError(
                    "the loader gives no more batches: it can be read only once; give a loader that can be restarted"
                )
        return to_images(batch, self.machine).to(memory_format=self.machine.memory_format)

    def state_dict(self) -> dict[str, Any]:
        save = getattr(self.loader, "state_dict", None)
        return {"kind": "loader", "loader": save() if save is not None else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["kind"] != "loader":
            raise ValueError("the run was fed by a data set: resume it with that data set, not with a loader")
        if state["loader"] is not None and hasattr(self.loader, "load_state_dict"):
            self.loader.load_state_dict(state["loader"])


def to_images(batch: Any, machine: Machine, *, batched: bool = True) -> Tensor:
    """The images `[N, C, H, H]` in [-1, 1] of a batch: a tensor, or a tuple, list or dict that holds one first.

    Bytes are scaled; floating point is taken as it is. With `batched=False`, one image `[C, H, H]` becomes a batch.
    """
    if isinstance(batch, dict):
        batch = next(iter(batch.values()))
    while isinstance(batch, (tuple, list)):
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise ValueError(f"a batch must be a tensor of images or hold one first, got {type(batch).__name__}")
    images = batch if batched else batch[None]
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be square, [N, C, H, H], got {list(images.shape)}")
    images = images.to(machine.device, non_blocking=True)
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(127.5).sub_(1.0)
    if not images.is_floating_point():
        raise ValueError(f"images must be bytes, or floating point in [-1, 1], got {images.dtype}")
    return images.to(torch.float32)
