"""One image file to pixels of one size, square or not.

    read header -> refuse what is too large -> orient (EXIF) -> composite on white -> resize to cover the size
    -> crop the centre -> L or RGB

Resizing is Pillow's Lanczos, whose support grows with the scale, so that nothing aliases.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor

from gan_fast.data.errors import missing_extra

if TYPE_CHECKING:
    from PIL import Image

# Decoded by Pillow's own code from one file; EPS, PDF and others that start programs or load plugins are not here.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "AVIF", "JPEG2000", "ICO")
# Pillow's own limit for a "decompression bomb": about 9459 x 9459.
MOST_PIXELS = 1024 * 1024 * 1024 // 4 // 3
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
# What Pillow's decoders raise on damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, OverflowError)


class Unusable(Exception):
    """This file cannot be used; the message is the reason, the same words for the same fault."""


def pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_extra("Pillow", "reading image files") from error
    return Image


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Pillow only warns of a decompression bomb below twice its limit; here every warning of it is an error."""
    image = pillow()
    # Before any thread opens a file: loading the decoders is not thread-safe.
    image.init()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        # The later filter is asked first.
        warnings.simplefilter("error", image.DecompressionBombWarning)
        yield


def open_image(source: str | IO[bytes]) -> Image.Image:
    """Header only, inside `strict_pillow`. Raises Unusable."""
    image = pillow()
    formats = [name for name in FORMATS if name in image.OPEN]
    try:
        opened: Image.Image = image.open(source, formats=formats)
    except PermissionError as error:
        raise Unusable("no permission to read it") from error
    except image.UnidentifiedImageError as error:
        raise Unusable("not an image") from error
    except (image.DecompressionBombError, image.DecompressionBombWarning) as error:
        raise Unusable(f"more than {MOST_PIXELS / 1e6:.0f} million pixels") from error
    except _DAMAGED as error:
        raise Unusable("damaged image") from error
    if opened.width * opened.height > MOST_PIXELS:
        raise Unusable(f"more than {MOST_PIXELS / 1e6:.0f} million pixels")
    return opened


def smallest_accepted(resolution: int) -> int:
    """Images may be enlarged to twice their size, not more: a blur of that kind would be learned as real."""
    return resolution // 2


def decode(opened: Image.Image, resolution: int | tuple[int, int], channels: int) -> Tensor:
    """uint8 `[C, resolution, resolution]`, or `[C, height, width]` for such a pair. Raises Unusable."""
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    longer = max(height, width)
    if min(opened.size) < smallest_accepted(min(height, width)):
        raise Unusable(f"shorter side below {smallest_accepted(min(height, width))} pixels")
    from PIL import Image, ImageOps

    try:
        # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster; never below twice the target.
        opened.draft("RGB" if channels == 3 else "L", (2 * longer, 2 * longer))
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        plain = _flattened(upright, "RGB" if channels == 3 else "L")
        fitted = ImageOps.fit(plain, (width, height), Image.Resampling.LANCZOS)
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable(f"more than {MOST_PIXELS / 1e6:.0f} million pixels") from error
    except _DAMAGED as error:
        raise Unusable("damaged image") from error
    pixels = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
    return pixels.view(height, width, channels).permute(2, 0, 1).contiguous()


def _flattened(image: Image.Image, mode: str) -> Image.Image:
    """Any mode to L or RGB, 8 bits: transparency over white, 16 bits divided by 257."""
    from PIL import Image

    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(image).convert(mode)
    if image.mode == "F":
        raise Unusable("floating-point image: its range is not known, save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert(mode)
    # Straight from CMYK, LAB or a palette to grey loses the colour conversion on the way.
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image

    values: Any = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise Unusable("32-bit integer image: its range is not known, save it with 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
