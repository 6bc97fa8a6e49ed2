"""`load(spec)`: from what a person types to an `ImageDataset`, or for a toy distribution to a `PointDataset`.

digits | stacked-digits | fashion-mnist[:folder] | a folder of images | a zip of images | a file made by `gan-fast data`
ring8 | grid25 | swissroll
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from gan_fast.data import digits, idx, stacked
from gan_fast.data.arrays import check_channels, check_resolution, resize, to_channels
from gan_fast.data.dataset import ImageDataset
from gan_fast.data.errors import DataError
from gan_fast.data.files import Collection, collect
from gan_fast.data.packing import Packed, PackWriter, load_packed, looks_packed
from gan_fast.data.points import PointDataset, load_toy
from gan_fast.data.reading import choose_shape, decode_all, describe_skipped, split_of
from gan_fast.data.splits import check_split, subset
from gan_fast.data.toy import TOYS

PAIRS = ("digits-to-colour",)
BUILT_IN = ("digits", stacked.NAME, "fashion-mnist")
FEWEST_TO_TRAIN = 2


def load(
    spec: str | os.PathLike[str],
    *,
    resolution: int | None = None,
    channels: int | None = None,
    split: str = "train",
    limit: int | None = None,
) -> ImageDataset | PointDataset:
    """Load images, or points of a toy distribution. Nothing is ever downloaded.

    Args:
        spec: "digits", "stacked-digits", "fashion-mnist", "fashion-mnist:FOLDER", the path of a folder, a zip or a
            packed file, or the name of a toy distribution, "ring8", "grid25" or "swissroll", which has neither
            resolution nor channels.
        resolution: a power of two from 8. Default: 8 for digits and stacked digits, 32 for Fashion-MNIST, the packed
            one, or for files the largest power of two up to 256 that half of the images reach.
        channels: 1 or 3. Default: the data's own.
        split: "train", "test" (held out) or "all". Built-in data has a fixed split; of files a tenth is held out
            where there are at least 500.
        limit: at most this many images, a fixed random choice.

    Raises:
        DataError: data missing, unreadable or empty, in one message that says what to do.
    """
    spec = os.fspath(spec)
    check_split(split)
    if limit is not None and limit < 1:
        raise DataError(f"limit must be at least 1; got {limit}")
    if spec in TOYS:
        _refuse_shape(spec, resolution, channels)
        return load_toy(spec, split, limit)
    return load_images(spec, resolution, channels, split, limit)


def load_images(
    spec: str, resolution: int | None, channels: int | None, split: str = "train", limit: int | None = None
) -> ImageDataset:
    """`load` for anything but a toy distribution."""
    if resolution is not None:
        check_resolution(resolution)
    if channels is not None:
        check_channels(channels)
    name, _, root = spec.partition(":")
    if name in BUILT_IN and (name == "fashion-mnist" or not root):
        return _built_in(name, root or None, resolution, channels, split, limit)
    path = Path(spec).expanduser()
    if path.is_file() and looks_packed(path):
        return load_packed(path, resolution, channels, split, limit)
    return _from_files(find(spec), resolution, channels, split, limit)


def find(spec: str) -> Collection:
    """The folder or zip that `spec` names; DataError says what else it could have been."""
    path = Path(spec).expanduser()
    if path.is_dir() or (path.is_file() and zipfile.is_zipfile(path)):
        return collect(path)
    if path.is_file():
        raise DataError(f"{path} is neither a zip of images nor a file packed by gan-fast data: give one, or a folder")
    if spec in PAIRS:
        raise DataError(f"{spec} holds pictures of two kinds, for the recipes cyclegan and pix2pix")
    raise DataError(
        f"{spec}: there is no such file or folder (looked at {path.absolute()}). Give a folder or a zip of images, a "
        f"file packed by gan-fast data, or one of the built-in names: {', '.join([*BUILT_IN, *TOYS])}"
    )


def _refuse_shape(spec: str, resolution: int | None, channels: int | None) -> None:
    for name, value in (("resolution", resolution), ("channels", channels)):
        if value is not None:
            raise DataError(f"{spec} holds points in the plane, which have no {name}; got {name} {value}: leave it out")


def _from_files(
    collection: Collection, resolution: int | None, channels: int | None, split: str, limit: int | None
) -> ImageDataset:
    resolution, channels = choose_shape(collection, resolution, channels)
    train, test = split_of(collection)
    indices = {"train": train, "test": test, "all": torch.arange(len(collection.candidates))}[split]
    # With a limit, files are tried in a fixed random order until there are enough.
    order = (
        indices if limit is None else indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))]
    )
    wanted = len(indices) if limit is None else min(limit, len(indices))
    check_memory(collection.name, wanted, channels * resolution * resolution)
    images = torch.empty(wanted, channels, resolution, resolution, dtype=torch.uint8)
    kept: list[int] = []
    skipped = {reason: list(names) for reason, names in collection.refused.items()}
    for outcome in decode_all(collection.candidates, order.tolist(), resolution, channels):
        if outcome.pixels is None:
            skipped.setdefault(outcome.reason, []).append(collection.candidates[outcome.index].name)
            continue
        images[len(kept)] = outcome.pixels
        kept.append(outcome.index)
        if len(kept) == wanted:
            break
    if not kept and split == "train":
        raise DataError(
            f"no image in {collection.name} can be used at {resolution} pixels: {describe_skipped(skipped)}"
        )
    held_out: Callable[[], ImageDataset | None] | None = None
    if split == "train" and len(test):
        held_out = partial(_from_files, collection, resolution, channels, "test", limit)
    return ImageDataset(
        images[: len(kept)],
        None if collection.labels is None else torch.tensor(collection.labels)[kept],
        classes=collection.classes,
        name=collection.name,
        split=split,
        skipped=skipped,
        held_out=held_out,
    )


def check_memory(name: str, count: int, size: int) -> None:
    """DataError where `count` images of `size` bytes are more than half of the machine's memory."""
    needed = count * size
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise DataError(
            f"{name} needs {needed / 2**30:.1f} GiB at {size:,} bytes an image, more than half of this machine's "
            f"{memory / 2**30:.1f} GiB: pack it first (gan-fast data), which trains from the disk, or ask for a "
            "smaller resolution or a limit"
        )


def pack(
    spec: str | os.PathLike[str],
    out: str | os.PathLike[str],
    resolution: int | None = None,
    channels: int | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Write the images of `spec` to the one file `out`, which `load` maps instead of decoding.

    Args as of `load`; `progress(done, total)` is called after every image. The file appears only when it is complete.
    """
    spec, path = os.fspath(spec), Path(out).expanduser()
    if spec in TOYS:
        raise DataError(f"{spec} is drawn anew whenever it is loaded: there is nothing to pack")
    source = Path(spec).expanduser()
    if spec.partition(":")[0] in BUILT_IN or (source.is_file() and looks_packed(source)):
        return _pack_dataset(load_images(spec, resolution, channels), path)
    if resolution is not None:
        check_resolution(resolution)
    if channels is not None:
        check_channels(channels)
    collection = find(spec)
    resolution, channels = choose_shape(collection, resolution, channels)
    train, test = split_of(collection)
    skipped = {reason: list(names) for reason, names in collection.refused.items()}
    used, labels = [0, 0], collection.labels
    order = torch.cat([train, test]).tolist()
    with PackWriter(path, resolution, channels, collection.name, collection.classes) as writer:
        for done, outcome in enumerate(decode_all(collection.candidates, order, resolution, channels)):
            if outcome.pixels is None:
                skipped.setdefault(outcome.reason, []).append(collection.candidates[outcome.index].name)
            else:
                writer.add(outcome.pixels, None if labels is None else labels[outcome.index])
                used[done >= len(train)] += 1
            if progress is not None:
                progress(done + 1, len(order))
        if used[0] < FEWEST_TO_TRAIN:
            raise DataError(
                f"{spec} has {used[0]} usable images at {resolution} pixels; at least {FEWEST_TO_TRAIN} are needed to "
                f"train: {describe_skipped(skipped)}"
            )
        writer.finish(train=used[0])
    return Packed(str(path), used[0], used[1], resolution, channels, collection.classes, skipped)


def _pack_dataset(dataset: ImageDataset, path: Path) -> Packed:
    parts = [dataset] + ([dataset.held_out] if dataset.held_out is not None else [])
    with PackWriter(path, dataset.resolution, dataset.channels, dataset.name, dataset.classes) as writer:
        for part in parts:
            for i in range(len(part)):
                writer.add(part.images[i], None if part.labels is None else int(part.labels[i]))
        writer.finish(train=len(dataset))
    held_out = writer.count - len(dataset)
    return Packed(str(path), len(dataset), held_out, dataset.resolution, dataset.channels, dataset.classes)


def _built_in(
    name: str, root: str | None, resolution: int | None, channels: int | None, split: str, limit: int | None
) -> ImageDataset:
    if name == "digits":
        images, labels = digits.load_digits(split)
        classes, default = digits.CLASSES, digits.NATIVE_RESOLUTION
    elif name == stacked.NAME:
        if channels not in (None, 3):
            raise DataError(f"{name} stacks a digit in each of 3 channels; got channels {channels}: leave it out")
        images, labels = stacked.load_stacked(split)
        classes, default, channels = stacked.CLASSES, digits.NATIVE_RESOLUTION, 3
    else:
        images, labels = idx.load_fashion_mnist(split, root)
        classes, default = idx.CLASSES, idx.PADDED_RESOLUTION
    chosen = subset(len(images), limit)
    images = to_channels(resize(images[chosen], resolution or default), channels or 1)
    held_out = partial(_built_in, name, root, resolution, channels, "test", limit) if split == "train" else None
    return ImageDataset(images, labels[chosen], classes=classes, name=name, split=split, held_out=held_out)
