"""Images as one uint8 tensor `[N, C, H, W]`, and the batches a network sees:

x = pixel / 127.5 - 1        in [-1, 1]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gan_fast.data.errors import DataError


class ImageDataset:
    """Images in memory, or in a memory-mapped file.

    Attributes:
        images: uint8 `[N, C, H, W]`; C is 1 or 3. Only networks that translate pictures take H other than W.
        labels: int64 `[N]`, or None.
        classes: names of the labels; empty without labels.
        name: what a person calls the data.
        split: "train", "test" or "all".
        skipped: for every reason, the files that were left out while loading.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        classes: Sequence[str] = (),
        name: str = "images",
        split: str = "train",
        skipped: dict[str, list[str]] | None = None,
        held_out: Callable[[], ImageDataset | None] | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise DataError(
                f"images must be uint8 [N, C, H, W]; got {images.dtype} {list(images.shape)}: "
                "resize, crop and round them to 0..255 first"
            )
        if labels is not None and (labels.shape != images.shape[:1] or labels.dtype != torch.int64):
            raise DataError(f"labels must be int64 [{len(images)}]; got {labels.dtype} {list(labels.shape)}")
        self.images = images
        self.labels = labels
        self.classes = tuple(classes)
        self.name = name
        self.split = split
        self.skipped = skipped or {}
        self._load_held_out = held_out
        self._held_out: ImageDataset | None = None
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    def __repr__(self) -> str:
        labels = f", {len(self.classes)} classes" if self.labels is not None else ""
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"ImageDataset({self.name!r}, {self.split}, {len(self)} images of {shape}{labels})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: `(C, H, W)`."""
        return tuple(self.images.shape[1:])

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def resolution(self) -> int:
        return self.images.shape[2]

    @property
    def held_out(self) -> ImageDataset | None:
        """The real images kept away from training, or None where there are fewer than two. Loaded when asked."""
        if self._load_held_out is not None:
            loaded, self._load_held_out = self._load_held_out(), None
            self._held_out = loaded if loaded is not None and len(loaded) >= 2 else None
        return self._held_out

    @property
    def fingerprint(self) -> str:
        """sha256 of shape, pixels and labels: equal for equal content, whatever file it came from."""
        if self._fingerprint is None:
            digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
            for chunk in self.images.split(4096):
                digest.update(chunk.contiguous().numpy().data)
            if self.labels is not None:
                digest.update(repr(self.classes).encode())
                digest.update(self.labels.contiguous().numpy().data)
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
        """Images `[B, C, H, W]` in [-1, 1] for int64 `indices` `[B]`.

        Bytes travel to the device and become floating point there. `flip`, bool `[B]`, mirrors left to right
        (see `BatchSampler`).
        """
        bytes_ = self.images[indices]
        if flip is not None:
            bytes_ = torch.where(flip.view(-1, 1, 1, 1), bytes_.flip(3), bytes_)
        # Scaled in fp32 before rounding to `dtype`: in bf16 the subtraction would lose the low bits of dark pixels.
        scaled = bytes_.to(device, non_blocking=True).to(torch.float32).div_(127.5).sub_(1.0)
        return scaled.to(dtype=dtype, memory_format=memory_format)

    def label_batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Labels int64 `[B]`; raises DataError where the data has none."""
        if self.labels is None:
            raise DataError(f"{self.name} has no labels: put the images of each class in a folder of their own")
        return self.labels[indices].to(device, non_blocking=True)
