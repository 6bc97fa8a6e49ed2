"""A packed file: safetensors with `images` uint8 `[N, C, H, H]`, training images first, then the held-out ones, and
`labels` int64 `[N]` where there are classes; its metadata says what it is. It is memory-mapped when loaded.

Layout: u64 length of the header, JSON header padded with spaces, then the tensors. Images stream to the disk as they
are decoded, so packing needs no more memory than a few of them; the header, which holds their number, is written last
into the room left for it. The file gets its name only when it is complete.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from gan_fast.data.dataset import ImageDataset
from gan_fast.data.errors import DataError, missing_extra
from gan_fast.data.splits import subset

FORMAT = "images/1"


@dataclass
class Packed:
    """What `pack` wrote."""

    path: str
    train: int
    held_out: int
    resolution: int
    channels: int
    classes: tuple[str, ...]
    skipped: dict[str, list[str]] = field(default_factory=dict)


@final
class PackWriter:
    """Images one by one into a packed file; `finish` gives it its name, leaving the block otherwise removes it."""

    def __init__(self, out: Path, resolution: int, channels: int, name: str, classes: tuple[str, ...]) -> None:
        self.out, self.shape, self.name, self.classes = out, (channels, resolution, resolution), name, classes
        self.labels: list[int] = []
        self.count = 0
        longest = len(self._header(1 << 48, 1 << 48))
        self.room = longest + -longest % 4096
        self.partial = out.with_name(f".{out.name}.{os.getpid()}.part")

    def __enter__(self) -> PackWriter:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.partial, "wb")
        except OSError as error:
            raise DataError(
                f"{self.out} cannot be written ({error.strerror}): give a file in a folder of yours"
            ) from error
        self.file.seek(8 + self.room)
        return self

    def add(self, pixels: Tensor, label: int | None) -> None:
        self.file.write(pixels.contiguous().numpy().data)
        self.count += 1
        if self.classes:
            assert label is not None
            self.labels.append(label)

    def finish(self, train: int) -> None:
        if self.classes:
            self.file.write(torch.tensor(self.labels, dtype=torch.int64).numpy().data)
        header = self._header(self.count, train)
        self.file.seek(0)
        self.file.write(struct.pack("<Q", self.room) + header.ljust(self.room))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.partial, self.out)

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        self.partial.unlink(missing_ok=True)

    def _header(self, count: int, train: int) -> bytes:
        pixels = count * self.shape[0] * self.shape[1] * self.shape[2]
        # Labels of 8 bytes begin on a multiple of 8: a picture has at least 8 x 8 pixels.
        entries: dict[str, object] = {
            "__metadata__": {
                "gan_fast": FORMAT,
                "name": self.name,
                "train": str(train),
                "classes": json.dumps(self.classes),
            },
            "images": {"dtype": "U8", "shape": [count, *self.shape], "data_offsets": [0, pixels]},
        }
        if self.classes:
            entries["labels"] = {"dtype": "I64", "shape": [count], "data_offsets": [pixels, pixels + 8 * count]}
        return json.dumps(entries).encode()


def looks_packed(path: Path) -> bool:
    """Whether a file begins as safetensors do."""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] < 1 << 27


def load_packed(
    path: Path, resolution: int | None, channels: int | None, split: str, limit: int | None
) -> ImageDataset:
    """The images of `split`, mapped from the file (a copy where `limit` picks some)."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise missing_extra("safetensors", "a packed file") from error
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("gan_fast") != FORMAT:
                raise DataError(f"{path} is a safetensors file but holds no packed images: make one with gan-fast data")
            images = file.get_tensor("images")
            classes = tuple(json.loads(about["classes"]))
            labels = file.get_tensor("labels") if classes else None
            train = int(about["train"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is truncated or damaged ({error}): pack it again") from error
    if labels is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise DataError(f"{path} has labels outside its {len(classes)} classes: pack it again")
    for asked, has, what in ((resolution, images.shape[2], "resolution"), (channels, images.shape[1], "channels")):
        if asked is not None and asked != has:
            raise DataError(f"{path} was packed with {what} {has}, not {asked}: pack the images again with {asked}")
    total = len(images)
    bounds = {"train": slice(0, train), "test": slice(train, None), "all": slice(None)}[split]
    images, labels = images[bounds], None if labels is None else labels[bounds]
    if limit is not None and limit < len(images):
        chosen = subset(len(images), limit)
        images, labels = images[chosen], None if labels is None else labels[chosen]
    held_out: Callable[[], ImageDataset | None] | None = None
    if split == "train" and train < total:
        held_out = partial(load_packed, path, resolution, channels, "test", limit)
    return ImageDataset(images, labels, classes=classes, name=about["name"], split=split, held_out=held_out)
