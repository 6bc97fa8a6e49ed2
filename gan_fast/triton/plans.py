"""What is launched for a product of given tensors: kernel, arguments, grid, tile.

A plan is made from shapes alone, so that the same one is launched on a card, run by the interpreter and, made of
tensors on the meta device, compiled ahead of time. Making one takes tens of microseconds: `launch.py` keeps what of it
does not depend on the numbers, and runs that again on the next tensors of the same shapes.

Tiles. A step multiplies `[m, k]` by `[k, n]` and reads m k + k n numbers for m n k products, so large tiles read less;
what they leave over at the border of a small image or of few channels is lost. wgmma needs m >= 64 and four warps.
Shared memory holds `stages` steps: 3 of 2 (128 + 256) 64 bytes are 147 KB of 227 KB on sm_90, 4 of 2 (128 + 64) 64
are 98 KB of 163 KB on sm_80.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gan_fast.reference.modulated_convolution import memory_order

Capability = tuple[int, int]
_LAST = torch.channels_last


@dataclass(frozen=True)
class Tile:
    """m rows by n columns of the result, k of the sum a step; rows are pixels (weight gradient: output channels)."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Plan:
    """One launch. `arguments` are in the kernel's order; those that are upper case are compile-time constants."""

    kernel: str
    arguments: Mapping[str, Any]
    grid: tuple[int, ...]
    tile: Tile
    result: Tensor
    partials: tuple[Tensor, ...] = ()

    @property
    def tensors(self) -> int:
        """How many of the arguments, the first ones, are tensors or None in the place of one."""
        return sum(value is None or isinstance(value, Tensor) for value in self.arguments.values())


@dataclass(frozen=True)
class Target:
    """Where a plan will run."""

    capability: Capability = (9, 0)
    processors: int = 132
    interpreted: bool = False

    @classmethod
    def of(cls, device: torch.device) -> Target:
        """The card that holds a tensor."""
        p = torch.cuda.get_device_properties(device)
        return cls((p.major, p.minor), p.multi_processor_count)


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power(n: int, least: int, most: int) -> int:
    """The power of two that covers n, within limits that are powers of two."""
    size = least
    while size < min(n, most):
        size *= 2
    return size


def precision(dtype: torch.dtype) -> str:
    """How tl.dot multiplies: float32 as torch's convolutions are told to, tf32 or ieee."""
    if dtype != torch.float32:
        return "tf32"  # which is not read for 16-bit operands
    asked: str = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return "tf32" if asked == "tf32" else "ieee"


def product_tile(
    dtype: torch.dtype,
    samples: int,
    pixels: int,
    channels: int,
    out_channels: int,
    target: Target,
    reduces: bool = False,
) -> Tile:
    """For `product`: the forward pass and the input gradient, which may reduce as it stores.

    The largest of the table that the result fills and that leaves three of four multiprocessors something to do.
    """
    if dtype == torch.float32 and precision(dtype) == "ieee":  # no tensor core: multiply-adds on registers
        return Tile(64, power(out_channels, 16, 64), 16, 4, 3)
    k = power(channels, 16, 32 if dtype == torch.float32 else 64)
    table = [Tile(128, 128, k, 8, 3), Tile(64, 128, k, 4, 4), Tile(64, 64, k, 4, 4), Tile(64, 32, k, 4, 4)]
    # 128 sums a thread leave registers for the forward's epilogue on sm_90 alone, and for loads of whole vectors;
    # elsewhere they would spill
    if dtype != torch.float32 and target.capability[0] == 9 and not reduces and channels % 64 == 0:
        table.insert(0, Tile(128, 256, k, 8, 3))
    if out_channels < 128:
        table = [Tile(128, power(out_channels, 16, 64), k, 4, 4), Tile(64, power(out_channels, 16, 64), k, 4, 4)]
    fitting = [t for t in table if t.n <= power(out_channels, 16, 256) and (pixels > 64 or t.m == 64)]
    for tile in fitting:
        if samples * cdiv(pixels, tile.m) * cdiv(out_channels, tile.n) >= target.processors * 3 // 4:
            return tile
    return fitting[-1]


def weight_gradient_tile(dtype: torch.dtype, pixels: int, channels: int, out_channels: int) -> Tile:
    """For `weight_gradient`, which keeps two sums: of a sample and of all."""
    if dtype == torch.float32:
        if precision(dtype) == "ieee":
            return Tile(power(out_channels, 16, 64), power(channels, 16, 64), 16, 4, 3)
        return Tile(power(out_channels, 16, 64), power(channels, 16, 128), 32, 4, 3)
    m, n = power(out_channels, 16, 128), power(channels, 16, 128)
    return Tile(m, n, 64 if pixels >= 64 else power(pixels, 16, 64), 8 if m * n > 128 * 64 else 4, 3)


def weight_gradient_splits(
    samples: int, pixels: int, tiles: int, outputs: int, tile: Tile, target: Target
) -> tuple[int, int]:
    """Into how many parts the samples, and the pixels of each, are split: (samples a part, pixels a part).

    A part more fills multiprocessors that would idle, and writes and reads `outputs` more partial sums. The cost is in
    steps of one block: those of the waves of blocks, and the time of 8 bytes an output at 64 bytes a step and thread.
    """
    slots = target.processors * min(max(1, 128 * 128 // (tile.m * tile.n)), 4)  # small tiles share a multiprocessor
    best, choice = float("inf"), (samples, cdiv(pixels, tile.k) * tile.k)
    for sample_splits in range(1, min(samples, 64) + 1):
        samples_a_part = cdiv(samples, sample_splits)
        for pixel_splits in (1, 2, 4, 8, 16, 32, 64) if sample_splits == samples else (1,):
            pixels_a_part = cdiv(cdiv(pixels, pixel_splits), tile.k) * tile.k
            parts = cdiv(samples, samples_a_part) * cdiv(pixels, pixels_a_part)
            waves = cdiv(tiles * parts, slots)
            steps = waves * samples_a_part * (pixels_a_part // tile.k)
            partial = 0 if parts == 1 else parts * outputs * 8 / (target.processors * tile.warps * 32 * 64)
            if pixel_splits > 1 and pixels_a_part < 1024:
                continue
            if steps + partial < best:
                best, choice = steps + partial, (samples_a_part, pixels_a_part)
    return choice


Kind = tuple[Hashable, ...]
_ALIGNMENT = 16


def kind_of(product: str, tensors: tuple[Tensor | None, ...], numbers: tuple[float, ...]) -> Kind | None:
    """What tells a call from those that need another plan or another compiled kernel.

    Shapes, strides, dtypes, which tensors there are, numbers, device, and how float32 is multiplied. Triton compiles
    another kernel for pointers that 16 does not divide: such calls are of no kind.
    """
    first = tensors[0]
    assert first is not None
    facts: list[Hashable] = [product, numbers, first.get_device()]
    pointers = 0
    for t in tensors:
        if t is None:
            facts.append(None)
        else:
            facts += (t.shape, t.stride(), t.dtype)
            pointers |= t.data_ptr()
    if pointers % _ALIGNMENT:
        return None
    if first.dtype == torch.float32:
        facts.append(precision(torch.float32))
    return tuple(facts)


@functools.lru_cache(4096)
def _order(shape: torch.Size, stride: tuple[int, ...]) -> torch.memory_format:
    return memory_order(torch.empty_strided(shape, stride, device="meta"))


def order_of(x: Tensor) -> torch.memory_format:
    """`memory_order`, remembered: asking a tensor for every stride takes longer than launching a kernel."""
    return _order(x.shape, x.stride())


def image(x: Tensor) -> Tensor:
    """An image as the kernels read it."""
    return x.contiguous(memory_format=_LAST)


def scale(v: Tensor) -> Tensor:
    """Styles or norms as the kernels read them."""
    return v.float().contiguous()


def vector(v: Tensor) -> Tensor:
    """Noise or a bias as the kernels read it."""
    return v.contiguous()


def matrix(w: Tensor, transposed: bool) -> Tensor:
    """Weights as `product` reads them: 16-bit tensor cores read either order of a matrix, tf32 ones want what is summed
    over to lie densely."""
    return image(w.transpose(0, 1) if transposed and w.dtype == torch.float32 else w)


def _scale(v: Tensor | None) -> Tensor | None:
    return None if v is None else scale(v)


def _noise(noise: Tensor | None) -> tuple[Tensor | None, int]:
    """Noise `[N or 1, 1, H, W]` and the step from one sample to the next."""
    if noise is None:
        return None, 0
    noise = vector(noise)
    return noise, noise[0].numel() if noise.shape[0] > 1 else 0


@functools.cache
def bound(clamp: float, dtype: torch.dtype) -> float:
    """The clamp as results of a dtype have it: below it is what was not clamped."""
    return float(torch.tensor(clamp, dtype=dtype)) if clamp >= 0 else 0.0


def product(
    x: Tensor,
    w: Tensor,
    load_scale: Tensor | None,
    store_scale: Tensor | None,
    target: Target,
    *,
    padding: int,
    transposed: bool = False,
    noise: Tensor | None = None,
    bias: Tensor | None = None,
    act: int = 0,
    alpha: float = 0.0,
    gain: float = 1.0,
    clamp: float = -1.0,
    other: Tensor | None = None,
) -> Plan:
    """y from x `[N, I, H, W]` and w `[O, I, k, k]`; transposed: dx from dz in the place of x, with s on store.

    With `other`, an image like the result, the partial sums of their product follow: `[N, tiles, channels]`.
    """
    size = w.shape[2]
    channels, out_channels = (w.shape[0], w.shape[1]) if transposed else (w.shape[1], w.shape[0])
    swapped = transposed and x.dtype != torch.float32  # the same weights, read across
    w, x = matrix(w, transposed), image(x)
    padding = size - 1 - padding if transposed else padding
    n, _, height, width = x.shape
    out_height, out_width = height + 2 * padding - size + 1, width + 2 * padding - size + 1
    y = torch.empty((n, out_channels, out_height, out_width), dtype=x.dtype, device=x.device, memory_format=_LAST)
    tile = product_tile(x.dtype, n, out_height * out_width, channels, out_channels, target, other is not None)
    rows, columns = cdiv(out_height * out_width, tile.m), cdiv(out_channels, tile.n)
    partial = None if other is None else x.new_empty((n, rows, out_channels), dtype=torch.float32)
    noise, noise_sample = _noise(noise)
    row = size * size * w.shape[1]  # w lies as [rows, taps, w.shape[1]]
    arguments = {
        "x": x,
        "w": w,
        "y": y,
        "load_scale": _scale(load_scale),
        "store_scale": _scale(store_scale),
        "noise": noise,
        "bias": None if bias is None else vector(bias),
        "other": None if other is None else image(other),
        "partial": partial,
        "height": height,
        "width": width,
        "out_height": out_height,
        "out_width": out_width,
        "channels": channels,
        "out_channels": out_channels,
        "w_tap": w.shape[1],
        "w_out": 1 if swapped else row,
        "w_in": row if swapped else 1,
        "noise_sample": noise_sample,
        "alpha": alpha if act == 2 else 0.0,
        "gain": gain,
        "clamp": bound(clamp, x.dtype),
        "SIZE": size,
        "PADDING": padding,
        "FLIP": transposed,
        "SLOPED": act != 0,
        "CLAMP": clamp >= 0,
        "BM": tile.m,
        "BN": tile.n,
        "BK": tile.k,
        "PRECISION": precision(x.dtype),
        "WIDE": target.interpreted,
    }
    return Plan("product", arguments, (n * rows * columns,), tile, y, () if partial is None else (partial,))


def weight_gradient(
    dz: Tensor, x: Tensor, s: Tensor | None, d: Tensor | None, target: Target, *, size: int, padding: int
) -> Plan:
    """dw, as partial sums `[splits, O, k, k, I]` in float32, or finished in the dtype of x where there is one split."""
    dz, x = image(dz), image(x)
    n, channels, height, width = x.shape
    _, out_channels, out_height, out_width = dz.shape
    pixels = out_height * out_width
    tile = weight_gradient_tile(x.dtype, pixels, channels, out_channels)
    tiles = cdiv(out_channels, tile.m) * cdiv(channels, tile.n) * size * size
    outputs = out_channels * channels * size * size
    samples_a_split, pixels_a_split = weight_gradient_splits(n, pixels, tiles, outputs, tile, target)
    pixel_splits = cdiv(pixels, pixels_a_split)
    splits = cdiv(n, samples_a_split) * pixel_splits
    out = x.new_empty((splits, out_channels, size, size, channels), dtype=x.dtype if splits == 1 else torch.float32)
    arguments = {
        "dz": dz,
        "x": x,
        "out": out,
        "d": _scale(d),
        "s": _scale(s),
        "samples": n,
        "height": height,
        "width": width,
        "out_height": out_height,
        "out_width": out_width,
        "channels": channels,
        "out_channels": out_channels,
        "pixel_splits": pixel_splits,
        "samples_a_split": samples_a_split,
        "pixels_a_split": pixels_a_split,
        "SIZE": size,
        "PADDING": padding,
        "BO": tile.m,
        "BI": tile.n,
        "BP": tile.k,
        "PRECISION": precision(x.dtype),
        "WIDE": target.interpreted,
    }
    return Plan("weight_gradient", arguments, (tiles, splits), tile, out)


def epilogue_gradient(
    dy: Tensor,
    y: Tensor,
    noise: Tensor | None,
    target: Target,
    *,
    act: int = 0,
    alpha: float = 0.0,
    gain: float = 1.0,
    clamp: float = -1.0,
) -> Plan:
    """dz like y, and the partial sums of its two reductions, `[N, chunks, C]`."""
    dy, y = image(dy), image(y)
    n, channels, height, width = y.shape
    pixels = height * width
    tile = Tile(power(pixels, 16, 64), power(channels, 16, 64), 1, 4, 2)
    # one program reads a few tiles: enough that the sums cost nothing, few enough that every multiprocessor has work
    pixels_a_chunk = tile.m * max(1, min(8, n * pixels * cdiv(channels, tile.n) // (tile.m * 8 * target.processors)))
    chunks = cdiv(pixels, pixels_a_chunk)
    dz = torch.empty_like(y, memory_format=_LAST)
    sums = y.new_empty((n, chunks, channels), dtype=torch.float32)
    products = torch.empty_like(sums)
    noise, noise_sample = _noise(noise)
    arguments = {
        "dy": dy,
        "y": y,
        "noise": noise,
        "dz": dz,
        "sums": sums,
        "products": products,
        "pixels": pixels,
        "channels": channels,
        "chunks": chunks,
        "pixels_a_chunk": pixels_a_chunk,
        "noise_sample": noise_sample,
        "alpha": alpha if act == 2 else 0.0,
        "gain": gain,
        "clamp": bound(clamp, y.dtype),
        "SLOPED": act != 0,
        "CLAMP": clamp >= 0,
        "BP": tile.m,
        "BC": tile.n,
    }
    grid = (n * chunks * cdiv(channels, tile.n),)
    return Plan("epilogue_gradient", arguments, grid, tile, dz, (sums, products))
