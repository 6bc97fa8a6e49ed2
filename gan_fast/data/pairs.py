"""Pictures of two kinds, A and B, to translate between: unaligned, or aligned, where picture i of both shows one thing.

    digits-to-colour         A digits, B other digits in ink on paper: a pixel v in 0..1 becomes (1 - v) paper + v ink
    FOLDER or zip            with trainA and trainB (testA and testB are held out), or A and B, inside
    FOLDER or zip, aligned   the same, pictures of equal names belong together; or each picture A and B side by side
    A, B                     two folders, zips, packed files or built-in names

All pictures are brought to one size, which need not be square: enlarged or shrunk to cover it, then cropped.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from gan_fast.data import loading
from gan_fast.data.arrays import check_channels, resize, to_channels
from gan_fast.data.dataset import ImageDataset
from gan_fast.data.decode import GREY_MODES, Unusable, open_image, strict_pillow
from gan_fast.data.digits import CLASSES, NATIVE_RESOLUTION, load_digits
from gan_fast.data.errors import DataError
from gan_fast.data.files import Candidate, Collection, organise
from gan_fast.data.packing import looks_packed
from gan_fast.data.reading import HEADERS_READ, LARGEST_DEFAULT, decode_all, describe_skipped, split_of
from gan_fast.data.splits import stratified

COLOURED = loading.PAIRS[0]
PAPER, INK = (255, 222, 120), (28, 40, 150)

_SIDE = re.compile(r"(train|test|val)?[-_ ]?([ab])", re.IGNORECASE)


class PairDataset:
    """Two sets of pictures of one shape.

    Attributes:
        a, b: the sets.
        aligned: whether a[i] and b[i] belong together.
        name, split: as of `ImageDataset`.
        held_out: pictures kept away from training, or None. Of digits-to-colour these are aligned, so that the right
            translation of each is known.

    A sample is a picture of each, one above the other along the channels: `[2 C, H, W]`.
    """

    def __init__(
        self,
        a: ImageDataset,
        b: ImageDataset,
        *,
        aligned: bool = False,
        name: str = "pairs",
        split: str = "train",
        held_out: Callable[[], PairDataset | None] | None = None,
    ) -> None:
        if a.shape != b.shape:
            raise DataError(f"A and B must be pictures of one shape, got {list(a.shape)} and {list(b.shape)}")
        if not len(a) or not len(b):
            raise DataError(f"{name} must hold pictures of both kinds, got {len(a)} of A and {len(b)} of B")
        if aligned and len(a) != len(b):
            raise DataError(f"aligned pictures must be as many of each, got {len(a)} of A and {len(b)} of B")
        self.a, self.b, self.aligned, self.name, self.split = a, b, aligned, name, split
        self._load_held_out = held_out
        self._held_out: PairDataset | None = None

    def __len__(self) -> int:
        """Samples of an epoch: every picture of the larger set once."""
        return max(len(self.a), len(self.b))

    def __repr__(self) -> str:
        return f"PairDataset({self.name!r}, {self.split}, {self})"

    def __str__(self) -> str:
        count = f"{len(self.a):,} pairs" if self.aligned else f"{len(self.a):,} images of A and {len(self.b):,} of B"
        return f"{count}, {'x'.join(map(str, self.a.shape))}"

    @property
    def shape(self) -> tuple[int, ...]:
        """`(2 C, H, W)`."""
        channels, height, width = self.a.shape
        return 2 * channels, height, width

    @property
    def held_out(self) -> PairDataset | None:
        """Loaded when asked."""
        if self._load_held_out is not None:
            self._held_out, self._load_held_out = self._load_held_out(), None
        return self._held_out

    @property
    def fingerprint(self) -> str:
        """sha256 of both sets and of whether they are aligned."""
        return hashlib.sha256(f"{self.a.fingerprint} {self.b.fingerprint} {self.aligned}".encode()).hexdigest()

    def float_batch(
        self,
        of_a: Tensor,
        of_b: Tensor,
        device: torch.device | str = "cpu",
        *,
        flip_a: Tensor | None = None,
        flip_b: Tensor | None = None,
    ) -> Tensor:
        """fp32 `[N, 2 C, H, W]` in [-1, 1] for int64 indices `[N]` into A and into B."""
        parts = self.a.float_batch(of_a, device, flip=flip_a), self.b.float_batch(of_b, device, flip=flip_b)
        return torch.cat(parts, 1)


def coloured(digits: Tensor) -> Tensor:
    """uint8 `[N, 1, H, W]` to uint8 `[N, 3, H, W]`: dark blue ink where it was white, on yellow paper."""
    paper, ink = (torch.tensor(colour).float().view(1, 3, 1, 1) for colour in (PAPER, INK))
    v = digits.float() / 255
    return ((1 - v) * paper + v * ink).round().to(torch.uint8)


def load_pairs(
    spec: str,
    spec_b: str | None = None,
    *,
    height: int | None = None,
    width: int | None = None,
    channels: int | None = None,
    aligned: bool = False,
) -> PairDataset:
    """The pictures to train on; `held_out` has the others.

    Args:
        spec: of both, or of A where `spec_b` names B; see above.
        height, width: of all pictures, both or neither. Default: the median of the files, at most 256 on the shorter
            side, rounded to a multiple of 32, 8 or 4 by size; the own one of built-in data.
        channels: 1 or 3. Default: 1 where all pictures of both are grey.
        aligned: picture i of both belongs together.

    Raises:
        DataError: in one message that says what to do.
    """
    if (height is None) != (width is None):
        raise DataError(f"give height and width, or neither; got height {height} and width {width}")
    if channels is not None:
        check_channels(channels)
    size = None if height is None or width is None else (height, width)
    if spec_b is None and spec == COLOURED:
        return _coloured_digits(size, channels, aligned)
    named = [s for s in (spec, spec_b) if s is not None and _is_dataset(s)]
    if named:
        return _of_datasets(spec, spec_b, size, channels, aligned, named[0])
    if spec_b is not None:
        a, b = _side(loading.find(spec)), _side(loading.find(spec_b))
        return _of_files(Sides(a, b, f"{a.name}-{b.name}", aligned), size, channels)
    whole = loading.find(spec)
    found = sides_of(whole)
    if found is None and not aligned:
        raise DataError(
            f"{spec} must hold folders trainA and trainB (or A and B) with the pictures of each kind; or give the "
            "second kind as --data-b"
        )
    if found is None:
        found = Sides(whole, whole, whole.name, aligned=True, beside=True)
    return _of_files(found._replace(aligned=aligned), size, channels)


def _coloured_digits(size: tuple[int, int] | None, channels: int | None, aligned: bool) -> PairDataset:
    if channels not in (None, 3):
        raise DataError(f"{COLOURED} has colours; got channels {channels}: leave it out")
    resolution = _square(COLOURED, size) or NATIVE_RESOLUTION
    labels = load_digits("train")[1]
    everyone = torch.arange(len(labels))
    # Unaligned, no digit is in both sets: nothing could be learned from a picture's own other side.
    of_a, of_b = (everyone, everyone) if aligned else stratified(labels, 0.5)
    a, b = _digits("train", of_a, False, resolution), _digits("train", of_b, True, resolution)
    return _with_held_out(a, b, COLOURED, aligned, held_out_aligned=True)


def _digits(split: str, chosen: Tensor | None, colour: bool, resolution: int) -> ImageDataset:
    images, labels = load_digits(split)
    if chosen is not None:
        images, labels = images[chosen], labels[chosen]
    images = resize(coloured(images) if colour else to_channels(images, 3), resolution)
    name = "coloured digits" if colour else "digits"
    held_out = partial(_digits, "test", None, colour, resolution) if split == "train" else None
    return ImageDataset(images, labels, classes=CLASSES, name=name, split=split, held_out=held_out)


def _with_held_out(
    a: ImageDataset, b: ImageDataset, name: str, aligned: bool, held_out_aligned: bool | None = None
) -> PairDataset:
    """With what both sets hold out; aligned as they are, unless `held_out_aligned` says otherwise."""

    def load() -> PairDataset | None:
        if a.held_out is None or b.held_out is None:
            return None
        known = aligned if held_out_aligned is None else held_out_aligned
        return PairDataset(a.held_out, b.held_out, aligned=known, name=name, split="test")

    return PairDataset(a, b, aligned=aligned, name=name, held_out=load)


def _square(spec: str, size: tuple[int, int] | None) -> int | None:
    if size is None:
        return None
    if size[0] != size[1]:
        raise DataError(f"{spec} is square; got height {size[0]} and width {size[1]}")
    return size[0]


def _is_dataset(spec: str) -> bool:
    """Whether `data.load` serves it other than from image files."""
    path = Path(spec).expanduser()
    return spec.partition(":")[0] in loading.BUILT_IN or (path.is_file() and looks_packed(path))


def _of_datasets(
    spec: str, spec_b: str | None, size: tuple[int, int] | None, channels: int | None, aligned: bool, one: str
) -> PairDataset:
    if spec_b is None:
        raise DataError(f"{spec} is one kind of picture: give the other as --data-b, or --data {COLOURED}")
    if aligned:
        raise DataError(f"{one} has no partner for each picture: give folders with equal names, or --data {COLOURED}")
    resolution = _square(one, size)
    if resolution is None:
        resolution = loading.load_images(one, None, None, limit=1).resolution
    a, b = (loading.load_images(s, resolution, channels) for s in (spec, spec_b))
    if a.channels != b.channels:
        a, b = (loading.load_images(s, resolution, 3) for s in (spec, spec_b))
    return _with_held_out(a, b, f"{a.name}-{b.name}", aligned=False)


class Sides(NamedTuple):
    """Where the pictures of A and of B are; `beside`: in one file each, the left half A."""

    a: Collection
    b: Collection
    name: str
    aligned: bool = False
    beside: bool = False


def _side(collection: Collection, names: list[str] | None = None) -> Collection:
    """The collection with its candidates under other names, which say split and class."""
    if names is not None:
        candidates = [replace(c, name=n) for c, n in zip(collection.candidates, names, strict=True)]
        candidates.sort(key=lambda candidate: candidate.name)
        collection = replace(collection, candidates=candidates)
    classes, labels, held = organise([c.name for c in collection.candidates])
    return replace(collection, classes=classes, labels=labels, held=held)


def sides_of(whole: Collection) -> Sides | None:
    """By first-level folders trainA, trainB, testA, ..., or A and B; None where files lie otherwise."""
    parts = [PurePosixPath(c.name).parts for c in whole.candidates]
    while all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    sides: dict[str, tuple[list[Candidate], list[str]]] = {"a": ([], []), "b": ([], [])}
    for candidate, p in zip(whole.candidates, parts, strict=True):
        match = _SIDE.fullmatch(p[0]) if len(p) > 1 else None
        if match is None:
            return None
        candidates, names = sides[match[2].lower()]
        candidates.append(candidate)
        names.append("/".join([*([match[1].lower()] if match[1] else []), *p[1:]]))
    if not all(candidates for candidates, _ in sides.values()):
        return None
    a, b = (
        _side(Collection(f"{whole.name} {side.upper()}", candidates, whole.refused), names)
        for side, (candidates, names) in sides.items()
    )
    return Sides(a, b, whole.name)


def _of_files(sides: Sides, size: tuple[int, int] | None, channels: int | None) -> PairDataset:
    size, channels = _choose_size(sides, size, channels)
    if sides.beside:
        a, b = (_halves(sides.a, right) for right in (False, True))
        sides = sides._replace(a=a, b=b)
    elif sides.aligned:
        sides = _matched(sides)
    if sides.a.classes != sides.b.classes:
        sides = sides._replace(a=replace(sides.a, classes=(), labels=None), b=replace(sides.b, classes=(), labels=None))
    of_a, of_b = (_images(side, size, channels, sides.aligned) for side in (sides.a, sides.b))
    return _with_held_out(of_a, of_b, sides.name, sides.aligned)


def _key(candidate: Candidate) -> str:
    return str(PurePosixPath(candidate.name).with_suffix(""))


def _matched(sides: Sides) -> Sides:
    """Only pictures whose name without its ending is in both, in one order."""
    of_a, of_b = ({_key(c): i for i, c in enumerate(side.candidates)} for side in (sides.a, sides.b))
    common = sorted(of_a.keys() & of_b.keys())
    if not common:
        raise DataError(
            f"no picture of {sides.a.name} has the name of one of {sides.b.name}: aligned pictures have equal names, "
            "or lie side by side in one file"
        )

    def chosen(side: Collection, numbers: dict[str, int]) -> Collection:
        lost = [c.name for c in side.candidates if _key(c) not in of_a or _key(c) not in of_b]
        refused = {**side.refused, "no partner of the same name": lost} if lost else side.refused
        return _side(replace(side, candidates=[side.candidates[numbers[key]] for key in common], refused=refused))

    return sides._replace(a=chosen(sides.a, of_a), b=chosen(sides.b, of_b))


def _halves(collection: Collection, right: bool) -> Collection:
    """Each picture's left or right half."""

    def half(candidate: Candidate) -> io.BytesIO:
        from PIL import ImageOps

        source = candidate.source()
        with open_image(source) as opened:
            try:
                whole = ImageOps.exif_transpose(opened)
                middle = whole.width // 2
                part = whole.crop((middle if right else 0, 0, 2 * middle if right else middle, whole.height))
                written = io.BytesIO()
                # TIFF keeps any mode as it is.
                part.save(written, "TIFF")
            except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
                raise Unusable("damaged image") from error
        written.seek(0)
        return written

    return replace(collection, candidates=[replace(c, source=partial(half, c)) for c in collection.candidates])


def _choose_size(sides: Sides, size: tuple[int, int] | None, channels: int | None) -> tuple[tuple[int, int], int]:
    if size is not None and channels is not None:
        return size, channels
    heights, widths, grey = [], [], True
    for side in (sides.a,) if sides.beside else (sides.a, sides.b):
        with strict_pillow():
            for candidate in side.candidates[:: max(1, len(side.candidates) // HEADERS_READ)]:
                try:
                    with open_image(candidate.source()) as opened:
                        heights.append(opened.height)
                        widths.append(opened.width // 2 if sides.beside else opened.width)
                        grey = grey and opened.mode in GREY_MODES
                except Unusable:
                    continue
    if not heights:
        raise DataError(f"no image can be read in {sides.name}: give folders of images")
    if size is None:
        height, width = median(heights), median(widths)
        scale = min(1.0, LARGEST_DEFAULT / min(height, width))
        size = _rounded(scale * height), _rounded(scale * width)
    return size, channels or (1 if grey else 3)


def _rounded(side: float) -> int:
    step = 32 if side >= 128 else 8 if side >= 32 else 4
    return max(8, step * round(side / step))


def _images(side: Collection, size: tuple[int, int], channels: int, aligned: bool, held: bool = False) -> ImageDataset:
    """The training images of a side, or the held-out ones."""
    order = split_of(side)[held].tolist()
    loading.check_memory(side.name, len(order), channels * size[0] * size[1])
    images = torch.empty(len(order), channels, *size, dtype=torch.uint8)
    kept: list[int] = []
    skipped: dict[str, list[str]] = {}
    for outcome in decode_all(side.candidates, order, size, channels):
        if outcome.pixels is None:
            skipped.setdefault(outcome.reason, []).append(side.candidates[outcome.index].name)
            continue
        images[len(kept)] = outcome.pixels
        kept.append(outcome.index)
    where = f"{size[0]}x{size[1]} pixels: {describe_skipped(skipped)}"
    if aligned and skipped:
        raise DataError(f"{side.name} has pictures that cannot be used at {where}; remove them with their partners")
    if not kept and not held:
        raise DataError(f"no image in {side.name} can be used at {where}")
    return ImageDataset(
        images[: len(kept)],
        None if side.labels is None else torch.tensor(side.labels)[kept],
        classes=side.classes,
        name=side.name,
        split="test" if held else "train",
        skipped={**side.refused, **skipped},
        held_out=None if held else partial(_images, side, size, channels, aligned, True),
    )
