"""`load(spec)`: from what a person types to an `ImageDataset`.

digits | fashion-mnist[:folder] | a folder of images | a zip of images | a file made by `gan-fast data`
"""

from __future__ import annotations

import os
from functools import partial

from gan_fast.data import digits, idx
from gan_fast.data.arrays import check_channels, check_resolution, resize, to_channels
from gan_fast.data.dataset import ImageDataset
from gan_fast.data.errors import DataError
from gan_fast.data.splits import check_split, subset


def load(
    spec: str | os.PathLike[str],
    *,
    resolution: int | None = None,
    channels: int | None = None,
    split: str = "train",
    limit: int | None = None,
) -> ImageDataset:
    """Load images. Nothing is ever downloaded.

    Args:
        spec: "digits", "fashion-mnist", "fashion-mnist:FOLDER", or the path of a folder, a zip or a packed file.
        resolution: a power of two from 8. Default: 8 for digits, 32 for Fashion-MNIST, the packed one, or for files
            the largest power of two up to 256 that half of the images reach.
        channels: 1 or 3. Default: the data's own.
        split: "train", "test" (held out) or "all". Built-in data has a fixed split; of files a tenth is held out
            where there are at least 500.
        limit: at most this many images, a fixed random choice.

    Raises:
        DataError: data missing, unreadable or empty, in one message that says what to do.
    """
    spec = os.fspath(spec)
    check_split(split)
    if resolution is not None:
        check_resolution(resolution)
    if channels is not None:
        check_channels(channels)
    if limit is not None and limit < 1:
        raise DataError(f"limit must be at least 1; got {limit}")
    name, _, root = spec.partition(":")
    if name in ("digits", "fashion-mnist") and (name == "fashion-mnist" or not root):
        return _built_in(name, root or None, resolution, channels, split, limit)
    raise DataError(f"{spec}: no such data")


def _built_in(
    name: str, root: str | None, resolution: int | None, channels: int | None, split: str, limit: int | None
) -> ImageDataset:
    if name == "digits":
        images, labels = digits.load_digits(split)
        classes, default = digits.CLASSES, digits.NATIVE_RESOLUTION
    else:
        images, labels = idx.load_fashion_mnist(split, root)
        classes, default = idx.CLASSES, idx.PADDED_RESOLUTION
    chosen = subset(len(images), limit)
    images = to_channels(resize(images[chosen], resolution or default), channels or 1)
    held_out = partial(_built_in, name, root, resolution, channels, "test", limit) if split == "train" else None
    return ImageDataset(images, labels[chosen], classes=classes, name=name, split=split, held_out=held_out)
