"""PNG files: a grid of images, a plot of points, and the curves of the losses. All replace their file atomically."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gan_fast.training.checkpoint import write_file

# Small images are enlarged, pixel by pixel, until a grid is about this wide.
_GRID_PIXELS = 640
# Grey of the line between images: 8x8 digits on black would run into each other.
_LINE = 90
# Curves are drawn with at most this many points, each the mean of its stretch.
_CURVE_POINTS = 500


def to_bytes(images: Tensor) -> Tensor:
    """uint8 `[N, C, H, W]` from images in [-1, 1]."""
    return images.detach().float().cpu().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


def grid(images: Tensor, columns: int | None = None) -> Tensor:
    """uint8 `[C, rows * (H + 1) - 1, columns * (W + 1) - 1]` from images in [-1, 1], a line between them."""
    pixels = to_bytes(images)
    count, channels, height, width = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    laid = pixels.new_full((rows * columns, channels, height + 1, width + 1), _LINE)
    laid[:count, :, :height, :width] = pixels
    laid = laid.view(rows, columns, channels, height + 1, width + 1).permute(2, 0, 3, 1, 4)
    return laid.reshape(channels, rows * (height + 1), columns * (width + 1))[:, :-1, :-1]


def save_png(path: Path, pixels: Tensor) -> None:
    """Write uint8 `[C, H, W]`, C 1 or 3."""
    from PIL import Image

    array = pixels.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, "PNG")
    write_file(path, buffer.getvalue())


def save_grid(path: Path, images: Tensor, columns: int | None = None) -> None:
    """Write a grid of images `[N, C, H, W]` in [-1, 1], square-ish unless `columns` say, small images enlarged."""
    if images.ndim != 4:
        raise ValueError(f"a grid is made of images [N, C, H, W], got samples {list(images.shape)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = grid(images, columns)
    factor = max(1, _GRID_PIXELS // pixels.shape[-1])
    save_png(path, pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2))


def save_table(path: Path, images: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Write images `[R, C, channels, H, W]` as a table, with `rows` `[R, ...]` left of it and `columns` above it."""
    corner = torch.full_like(rows[:1], _LINE / 127.5 - 1)
    body = torch.cat([rows[:, None], images], 1).flatten(0, 1)
    save_grid(path, torch.cat([corner, columns, body]), 1 + len(columns))


def plot(points: Tensor, real: Tensor | None = None) -> Tensor:
    """uint8 `[3, H, W]`: points `[N, D]` over real ones, the first two coordinates, scaled so that the real ones fill
    it; what lies outside is counted in a corner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    frame = points if real is None else real
    low, high = frame[:, :2].amin(0), frame[:, :2].amax(0)
    margin = 0.08 * (high - low).clamp_min(1e-6)
    low, high = low - margin, high + margin
    for name, shown, colour in (("real", real, "0.6"), ("samples", points, "tab:red")):
        if shown is not None:
            axes.scatter(shown[:, 0].numpy(), shown[:, 1].numpy(), s=3, c=colour, alpha=0.5, linewidths=0, label=name)
    axes.set(xlim=(float(low[0]), float(high[0])), ylim=(float(low[1]), float(high[1])), aspect="equal")
    outside = int(((points[:, :2] < low) | (points[:, :2] > high)).any(1).sum())
    axes.set_title(f"{len(points):,} samples" + (f", {outside:,} of them outside" if outside else ""), fontsize="small")
    axes.legend(loc="upper right", fontsize="small", markerscale=4)
    canvas.draw()
    pixels: Tensor = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return pixels.view(height, width, 4)[:, :, :3].permute(2, 0, 1)


def save_curves(path: Path, kimg: Sequence[float], curves: dict[str, dict[str, Sequence[float]]]) -> None:
    """Write one panel for each entry of `curves`, each with its named lines over thousand images."""
    # The object interface: no global figure, no display, nothing to close.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6 * len(curves)), layout="constrained")
    for axes, (title, lines) in zip(
        figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0], curves.items(), strict=True
    ):
        for name, values in lines.items():
            axes.plot(_thin(kimg), _thin(values), label=name, linewidth=1)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right", fontsize="small")
    axes.set_xlabel("thousand real images shown")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_file(path, buffer.getvalue())


def _thin(values: Sequence[float]) -> list[float]:
    stretch = math.ceil(len(values) / _CURVE_POINTS) or 1
    pieces = [values[i : i + stretch] for i in range(0, len(values), stretch)]
    return [sum(piece) / len(piece) for piece in pieces]


def save_points(out: Path, points: Tensor, seeds: Sequence[int]) -> list[Path]:
    """Write points `[N, D]` as points.csv, a row for each seed, and points.png; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    names = ",".join(f"x{i}" for i in range(points.shape[1]))
    rows = [f"{seed},{','.join(f'{x:.6g}' for x in point)}" for seed, point in zip(seeds, points.tolist(), strict=True)]
    write_file(out / "points.csv", "\n".join([f"seed,{names}", *rows, ""]).encode())
    save_png(out / "points.png", plot(points))
    return [out / "points.csv", out / "points.png"]


def save_each(out: Path, images: Tensor, seeds: Sequence[int]) -> list[Path]:
    """Write each of images `[N, C, H, W]` in [-1, 1] as seedNNNNNN.png, and grid.png of all; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"seed{seed:06d}.png" for seed in seeds]
    for path, pixels in zip(paths, to_bytes(images), strict=True):
        save_png(path, pixels)
    save_grid(out / "grid.png", images)
    return paths
