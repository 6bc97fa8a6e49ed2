"""Pictures through a trained generator that takes pictures, and back:

y = G(x),  cycled = F(y)      where both directions were trained (cyclegan);  y = G(x) alone (pix2pix)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast.data import PairDataset
from gan_fast.data.decode import Unusable, open_image, strict_pillow
from gan_fast.data.files import Collection
from gan_fast.data.pairs import sides_of
from gan_fast.data.reading import Outcome, decode_all
from gan_fast.models import cyclegan
from gan_fast.training.checkpoint import CheckpointError
from gan_fast.training.pictures import save_grid, save_png, to_bytes
from gan_fast.training.sampling import Sampler

if TYPE_CHECKING:
    from PIL import Image

Direction = Literal["AtoB", "BtoA"]
DIRECTIONS: tuple[Direction, ...] = ("AtoB", "BtoA")

# Pixels of a batch.
_PIXELS = 1 << 18
_SPLIT = re.compile("^(train|test|val)/")
# The EXIF tag; from 5 on, height and width are exchanged.
_ORIENTATION = 0x0112


def opposite(direction: Direction) -> Direction:
    return "BtoA" if direction == "AtoB" else "AtoB"


def network_of(generator: nn.Module, direction: Direction) -> nn.Module:
    """The network that translates this way: one of a pair, or the only one."""
    if isinstance(generator, cyclegan.Generators):
        return generator.a_to_b if direction == "AtoB" else generator.b_to_a
    return generator


@torch.no_grad()
def translate(generator: nn.Module, images: Tensor, direction: Direction) -> Tensor:
    """fp32 `[N, C, H, W]` in [-1, 1] on the CPU, of images alike, by a generator in evaluation mode."""
    network = network_of(generator, direction)
    device = next(network.parameters()).device
    size = max(1, _PIXELS // images[0, 0].numel())
    return torch.cat([network(part.to(device)).float().cpu() for part in images.split(size)])


def sides(pairs: PairDataset, direction: Direction, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` inputs and as many pictures of the other kind, `[N, C, H, W]` in [-1, 1]."""
    both = pairs.a, pairs.b
    source, target = both if direction == "AtoB" else both[::-1]
    x, y = (side.float_batch(torch.arange(min(count, len(side)))) for side in (source, target))
    return x, y


def table(generator: nn.Module, pairs: PairDataset, directions: tuple[Direction, ...], rows: int) -> tuple[Tensor, int]:
    """Images for a grid and how many in a row: of each direction input, output, and the cycled input, or without a way
    back the right output where the pairs tell it."""
    rows = min(rows, len(pairs.a), len(pairs.b))
    columns = []
    for direction in directions:
        x, known = sides(pairs, direction, rows)
        y = translate(generator, x, direction)
        columns += [x, y]
        if isinstance(generator, cyclegan.Generators):
            columns.append(translate(generator, y, opposite(direction)))
        elif pairs.aligned:
            columns.append(known)
    return torch.stack(columns, 1).flatten(0, 1), len(columns)


class Translator:
    """The averaged generator of a run or checkpoint.

    Attributes:
        directions: which it can translate.
        size: `(C, H, W)` of the pictures it was trained on.
        multiple: what H and W of other pictures must be multiples of.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """CheckpointError where `path` cannot be used, or holds a generator that takes no pictures."""
        sampler = Sampler(path, device)
        if sampler.latent_size:
            raise CheckpointError(
                f"{path} holds a {sampler.state['recipe']['name']}, whose generator takes no pictures: use "
                "`gan-fast generate`, or train cyclegan or pix2pix"
            )
        settings, config = sampler.state["recipe"]["settings"], sampler.state["model"]["config"]
        self.folder, self.state, self.generator = sampler.folder, sampler.state, sampler.generator
        self.cycles = isinstance(self.generator, cyclegan.Generators)
        self.directions: tuple[Direction, ...] = DIRECTIONS if self.cycles else (settings["direction"],)
        self.size: tuple[int, int, int] = (settings["channels"], settings["height"], settings["width"])
        self.multiple = 1 << (config["downs"] if self.cycles else config["depth"])

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Images `[N, C, H, W]` in [-1, 1], fp32 on the CPU, of such images."""
        return translate(self.generator, images, direction)

    def cycled(self, translated: Tensor, direction: Direction) -> Tensor | None:
        """What the other direction makes of images translated by `direction`; None without one."""
        return translate(self.generator, translated, opposite(direction)) if self.cycles else None


def pictures_for(collection: Collection, direction: Direction, both: bool) -> Collection | None:
    """What of the files goes this way: of folders testA and testB (or trainA, A) those of its side, test ones first;
    of any other files all, and none of them BtoA where both ways are asked for."""
    found = sides_of(collection)
    if found is None:
        return None if both and direction == "BtoA" else collection
    side = found.a if direction == "AtoB" else found.b
    held = side.held or [True] * len(side.candidates)
    # `sides_of` puts the split before the name.
    chosen = [replace(c, name=_SPLIT.sub("", c.name)) for c, ours in zip(side.candidates, held, strict=True) if ours]
    return replace(side, candidates=chosen)


def read_pictures(
    translator: Translator,
    source: Collection | PairDataset,
    direction: Direction,
    count: int | None,
    keep_size: bool,
    skipped: dict[str, list[str]],
) -> Iterator[tuple[str, Tensor]]:
    """Names and images `[C, H, W]` in [-1, 1], at most `count`; what cannot be used goes to `skipped` by reason."""
    channels, height, width = translator.size
    if isinstance(source, PairDataset):
        side = source.a if direction == "AtoB" else source.b
        for i in range(len(side) if count is None else min(count, len(side))):
            yield f"{i:06d}", side.float_batch(torch.tensor([i]))[0]
        return
    given = 0
    for i, candidate in enumerate(source.candidates):
        if given == count:
            return
        size = (height, width)
        with strict_pillow():
            try:
                if keep_size:
                    with open_image(candidate.source()) as opened:
                        size = _taken(opened, translator.multiple)
                outcome = next(decode_all(source.candidates, [i], size, channels))
            except Unusable as fault:
                outcome = Outcome(i, None, str(fault))
        if outcome.pixels is None:
            skipped.setdefault(outcome.reason, []).append(candidate.name)
            continue
        given += 1
        yield candidate.name, outcome.pixels.float() / 127.5 - 1


def _taken(opened: Image.Image, multiple: int) -> tuple[int, int]:
    """Height and width of the upright picture, rounded down."""
    width, height = opened.size
    if opened.getexif().get(_ORIENTATION, 1) >= 5:
        width, height = height, width
    size = (height - height % multiple, width - width % multiple)
    if min(size) < 2 * multiple:
        raise Unusable(f"a side below {2 * multiple} pixels")
    return size


def write_translations(
    translator: Translator, pictures: Iterable[tuple[str, Tensor]], direction: Direction, out: Path, rows: int
) -> tuple[int, Path]:
    """Write OUT/DIRECTION/name.png of each, and the grid OUT/DIRECTION.png: input, output, and the cycled input where
    there is a way back. Returns how many, and the path of the grid."""
    grid = out / f"{direction}.png"
    shown: list[list[Tensor]] = []
    written: set[Path] = set()
    for name, x in pictures:
        y = translator.translate(x[None], direction)
        path = out / direction / PurePosixPath(name).with_suffix(".png")
        if path in written:
            # a.jpg beside a.png
            path = path.with_name(f"{PurePosixPath(name).name}.png")
        written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(path, to_bytes(y)[0])
        if len(shown) < rows:
            cycled = translator.cycled(y, direction)
            parts = [x[None], y] if cycled is None else [x[None], y, cycled]
            shown.append([F.interpolate(part, translator.size[1:], mode="area") for part in parts])
    if shown:
        save_grid(grid, torch.cat([part for parts in shown for part in parts]), len(shown[0]))
    return len(written), grid
