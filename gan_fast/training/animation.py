"""Moving pictures: GIF by Pillow, MP4 by imageio with its ffmpeg. Both replace their file at the end, or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from gan_fast.training.checkpoint import write_file

# Small pictures are enlarged, pixel by pixel, to about this width.
_WIDTH = 256


def enlarged(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """uint8 `[C, H, W]`, each pixel repeated while the picture is small."""
    for frame in frames:
        factor = max(1, _WIDTH // frame.shape[-1])
        yield frame.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def save_gif(path: Path, frames: Iterable[Tensor], fps: float) -> None:
    """Write uint8 `[C, H, W]`, C 1 or 3, as an endless animation. A GIF counts in hundredths of a second."""
    from PIL import Image

    pictures = (Image.fromarray(frame.permute(1, 2, 0).squeeze(-1).contiguous().numpy()) for frame in enlarged(frames))
    buffer = io.BytesIO()
    duration = 10 * max(2, round(100 / fps))  # players slow down what claims to be faster than 50 frames a second
    next(pictures).save(buffer, "GIF", save_all=True, append_images=pictures, duration=duration, loop=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())


def save_mp4(path: Path, frames: Iterable[Tensor], fps: float) -> None:
    """Write uint8 `[C, H, W]`, C 1 or 3, as H.264. RuntimeError that names the extra where it is missing."""
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401 (imageio looks for it only while it writes)
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"an MP4 needs {error.name}, which is not installed: run  pip install 'gan-fast[video]'  or write a .gif"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    # Blocks of 2: H.264 halves the colour channels; the default of 16 would resize the pictures.
    with imageio.get_writer(partial, format="FFMPEG", mode="I", fps=fps, codec="libx264", macro_block_size=2) as film:
        for frame in enlarged(frames):
            film.append_data(frame.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    os.replace(partial, path)
