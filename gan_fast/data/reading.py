"""From a `Collection` of files to pixels: headers first, to choose resolution and channels, then every file."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from gan_fast.data.decode import GREY_MODES, Unusable, decode, open_image, strict_pillow
from gan_fast.data.errors import DataError
from gan_fast.data.files import Candidate, Collection
from gan_fast.data.splits import default_split

# The default resolution is at most this, for the sake of memory and of a first run that ends; ask for more by name.
LARGEST_DEFAULT = 256
HEADERS_READ = 1000


@dataclass(frozen=True)
class Outcome:
    """What became of one candidate: pixels, or the reason why not. Mode and size as far as known."""

    index: int
    pixels: Tensor | None = None
    reason: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)


def decode_all(
    candidates: Sequence[Candidate], order: Iterable[int], resolution: int | tuple[int, int], channels: int
) -> Iterator[Outcome]:
    """Decode `candidates[i]` for i in `order`, on several threads, results in that order."""

    def one(index: int) -> Outcome:
        mode, size = "", (0, 0)
        try:
            with open_image(candidates[index].source()) as opened:
                mode, size = opened.mode, opened.size
                return Outcome(index, decode(opened, resolution, channels), "", mode, size)
        except Unusable as fault:
            return Outcome(index, None, str(fault), mode, size)

    workers = min(8, os.cpu_count() or 1)
    waiting: deque[Future[Outcome]] = deque()
    with strict_pillow(), ThreadPoolExecutor(workers) as pool:
        # A window, not the whole list: memory stays at a few images however many there are.
        for index in order:
            waiting.append(pool.submit(one, index))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def choose_shape(collection: Collection, resolution: int | None, channels: int | None) -> tuple[int, int]:
    """The resolution and channels asked for, or what most of the files (up to 1,000 headers) suggest."""
    if resolution is not None and channels is not None:
        return resolution, channels
    step = max(1, len(collection.candidates) // HEADERS_READ)
    sides, grey, reasons = [], True, dict(collection.refused)
    with strict_pillow():
        for candidate in collection.candidates[::step]:
            try:
                with open_image(candidate.source()) as opened:
                    sides.append(min(opened.size))
                    grey = grey and opened.mode in GREY_MODES
            except Unusable as fault:
                reasons.setdefault(str(fault), []).append(candidate.name)
    if not sides:
        raise DataError(f"no image can be read in {collection.name}: {describe_skipped(reasons)}")
    if resolution is None:
        side = int(median(sides))
        resolution = min(LARGEST_DEFAULT, max(8, 1 << max(side.bit_length() - 1, 0)))
    return resolution, channels or (1 if grey else 3)


def split_of(collection: Collection) -> tuple[Tensor, Tensor]:
    """Candidate indices (train, test): the folders' own split, else the default one."""
    if collection.held is not None:
        held = torch.tensor(collection.held)
        return (~held).nonzero().flatten(), held.nonzero().flatten()
    labels = None if collection.labels is None else torch.tensor(collection.labels)
    return default_split(len(collection.candidates), labels)


def describe_skipped(skipped: dict[str, list[str]]) -> str:
    """One line: how many for each reason, and an example."""
    if not skipped:
        return "nothing was skipped"
    most = sorted(skipped.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{len(names)} {reason} (such as {names[0]})" for reason, names in most)
