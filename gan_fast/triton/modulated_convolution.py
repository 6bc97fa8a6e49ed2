"""Modulated convolution on tensor cores: three products and the pass that leads back through the epilogue.

    product              y[n,p,o]  = E( d[n,o] sum_{t,i} w[o,t,i] s[n,i] x[n,p+t,i] + noise[n,p] + b[o] )
    (roles swapped)      g[n,p,i]  = sum_{t,o} w[o,-t,i] d[n,o] dz[n,p+t,o],   dx = s g,   ds[n,i] = sum_p x g
    weight_gradient      dw[o,t,i] = sum_n d[n,o] s[n,i] sum_p dz[n,p,o] x[n,p+t,i]
    epilogue_gradient    dz = E'(y) dy,   sum_p dz,   sum_p (y [|y| < clamp] dy - noise dz)

E(z) = clamp(gain act(z)) with act linear, relu or leaky relu. Tensors are channels_last: p runs over pixels, t over the
taps of the kernel, and the innermost index lies densely in memory. These are implicit matrix products: no tensor of
patches is ever written. A tile of `product` is BM pixels of *one* sample by BN output channels, so that the styles of a
step are one vector of BK numbers. `weight_gradient` sums over the pixels of one sample before it scales, in float32:
its scales cost nothing in the inner loop. Sums across programs go through partial results, added in a fixed order.

`WIDE` computes in float32 what was rounded to the storage type: the interpreter's bfloat16 arithmetic is wrong.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _multiply(a, b, sum, PRECISION: tl.constexpr, WIDE: tl.constexpr):
    if WIDE:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), sum, input_precision="ieee")
    else:
        return tl.dot(a, b, sum, input_precision=PRECISION)


@triton.jit
def product(
    x,
    w,
    y,
    load_scale,
    store_scale,
    noise,
    bias,
    other,
    partial,
    height,
    width,
    out_height,
    out_width,
    channels,
    out_channels,
    w_tap,
    w_out,
    w_in,
    noise_sample,
    alpha,
    gain,
    clamp,
    SIZE: tl.constexpr,
    PADDING: tl.constexpr,
    FLIP: tl.constexpr,
    SLOPED: tl.constexpr,
    CLAMP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
):
    TAPS: tl.constexpr = SIZE * SIZE
    pixels = out_height * out_width
    tiles_n = tl.cdiv(out_channels, BN)
    tiles_m = tl.cdiv(pixels, BM)
    # neighbours share the pixels of a tile: they meet in the L2 cache
    program = tl.program_id(0)
    tile_n = program % tiles_n
    tile_m = (program // tiles_n) % tiles_m
    sample = program // (tiles_n * tiles_m)

    pixel = tile_m * BM + tl.arange(0, BM)
    column = tile_n * BN + tl.arange(0, BN)
    pixel_inside = pixel < pixels
    column_inside = column < out_channels
    top = pixel // out_width - PADDING
    left = pixel % out_width - PADDING
    x += sample.to(tl.int64) * height * width * channels

    sum = tl.zeros((BM, BN), tl.float32)
    # taps run fastest: nine steps read the same channels of nearly the same pixels
    for step in range(tl.cdiv(channels, BK) * TAPS):
        tap = step % TAPS
        row = top + tap // SIZE
        col = left + tap % SIZE
        k = (step // TAPS) * BK + tl.arange(0, BK)
        k_inside = k < channels
        inside = pixel_inside & (row >= 0) & (row < height) & (col >= 0) & (col < width)
        a = tl.load(
            x + ((row * width + col) * channels)[:, None] + k[None, :],
            mask=inside[:, None] & k_inside[None, :],
            other=0.0,
        )
        if load_scale is not None:
            scale = tl.load(load_scale + sample * channels + k, mask=k_inside, other=0.0)
            a = (a.to(tl.float32) * scale[None, :]).to(x.dtype.element_ty)
        b = tl.load(
            w + (TAPS - 1 - tap if FLIP else tap) * w_tap + k[:, None] * w_in + column[None, :] * w_out,
            mask=k_inside[:, None] & column_inside[None, :],
            other=0.0,
        )
        sum = _multiply(a, b, sum, PRECISION, WIDE)

    image = sample.to(tl.int64) * pixels * out_channels
    place = pixel[:, None] * out_channels + column[None, :]
    mask = pixel_inside[:, None] & column_inside[None, :]
    if partial is not None:
        reduced = tl.sum(sum * tl.load(other + image + place, mask=mask, other=0.0).to(tl.float32), axis=0)
        tl.store(partial + (sample * tiles_m + tile_m) * out_channels + column, reduced, mask=column_inside)
    if store_scale is not None:
        sum *= tl.load(store_scale + sample * out_channels + column, mask=column_inside, other=0.0)[None, :]
    if noise is not None:
        sum += tl.load(noise + sample * noise_sample + pixel, mask=pixel_inside, other=0.0).to(tl.float32)[:, None]
    if bias is not None:
        sum += tl.load(bias + column, mask=column_inside, other=0.0).to(tl.float32)[None, :]
    if SLOPED:
        # a NaN is not below zero and stays one
        sum = tl.where(sum < 0, sum * alpha, sum)
    sum *= gain
    if CLAMP:
        sum = tl.clamp(sum, -clamp, clamp, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y + image + place, sum.to(y.dtype.element_ty), mask=mask)


@triton.jit
def weight_gradient(
    dz,
    x,
    out,
    d,
    s,
    samples,
    height,
    width,
    out_height,
    out_width,
    channels,
    out_channels,
    pixel_splits,
    samples_a_split,
    pixels_a_split,
    SIZE: tl.constexpr,
    PADDING: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
    BP: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
):
    TAPS: tl.constexpr = SIZE * SIZE
    pixels = out_height * out_width
    tiles_i = tl.cdiv(channels, BI)
    # taps run fastest: nine programs read the same tensors
    program = tl.program_id(0)
    tap = program % TAPS
    tile_i = (program // TAPS) % tiles_i
    tile_o = program // (TAPS * tiles_i)
    split = tl.program_id(1)
    first_sample = (split // pixel_splits) * samples_a_split
    last_sample = tl.minimum(first_sample + samples_a_split, samples)
    first_pixel = (split % pixel_splits) * pixels_a_split
    last_pixel = tl.minimum(first_pixel + pixels_a_split, pixels)

    o = tile_o * BO + tl.arange(0, BO)
    i = tile_i * BI + tl.arange(0, BI)
    o_inside = o < out_channels
    i_inside = i < channels
    sum = tl.zeros((BO, BI), tl.float32)
    for sample in range(first_sample, last_sample):
        x_sample = x + tl.cast(sample, tl.int64) * height * width * channels
        dz_sample = dz + tl.cast(sample, tl.int64) * pixels * out_channels
        sum_sample = tl.zeros((BO, BI), tl.float32)
        for start in range(first_pixel, last_pixel, BP):
            pixel = start + tl.arange(0, BP)
            pixel_inside = pixel < last_pixel
            row = pixel // out_width - PADDING + tap // SIZE
            col = pixel % out_width - PADDING + tap % SIZE
            inside = pixel_inside & (row >= 0) & (row < height) & (col >= 0) & (col < width)
            a = tl.load(
                dz_sample + pixel[None, :] * out_channels + o[:, None],
                mask=pixel_inside[None, :] & o_inside[:, None],
                other=0.0,
            )
            b = tl.load(
                x_sample + ((row * width + col) * channels)[:, None] + i[None, :],
                mask=inside[:, None] & i_inside[None, :],
                other=0.0,
            )
            sum_sample = _multiply(a, b, sum_sample, PRECISION, WIDE)
        if d is not None:
            sum_sample *= tl.load(d + sample * out_channels + o, mask=o_inside, other=0.0)[:, None]
        if s is not None:
            sum_sample *= tl.load(s + sample * channels + i, mask=i_inside, other=0.0)[None, :]
        sum += sum_sample
    place = ((split.to(tl.int64) * out_channels + o[:, None]) * TAPS + tap) * channels + i[None, :]
    tl.store(out + place, sum.to(out.dtype.element_ty), mask=o_inside[:, None] & i_inside[None, :])


@triton.jit
def epilogue_gradient(
    dy,
    y,
    noise,
    dz,
    sums,
    products,
    pixels,
    channels,
    chunks,
    pixels_a_chunk,
    noise_sample,
    alpha,
    gain,
    clamp,
    SLOPED: tl.constexpr,
    CLAMP: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    tiles = tl.cdiv(channels, BC)
    program = tl.program_id(0)
    tile = program % tiles
    chunk = (program // tiles) % chunks
    sample = program // (tiles * chunks)
    column = tile * BC + tl.arange(0, BC)
    column_inside = column < channels
    start = sample.to(tl.int64) * pixels * channels
    sum = tl.zeros((BC,), tl.float32)
    product_sum = tl.zeros((BC,), tl.float32)
    last = tl.minimum((chunk + 1) * pixels_a_chunk, pixels)
    for first in range(chunk * pixels_a_chunk, last, BP):
        pixel = first + tl.arange(0, BP)
        inside = pixel < last
        place = start + pixel[:, None] * channels + column[None, :]
        mask = inside[:, None] & column_inside[None, :]
        v = tl.load(y + place, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
        if CLAMP:
            # no gradient reaches what was clamped
            g = tl.where(tl.abs(v) < clamp, g, 0.0)
        # E is homogeneous of degree one: E'(y) z dy is y dy
        product = v * g
        g *= gain
        if SLOPED:
            g = tl.where(v > 0, g, g * alpha)
        if noise is not None:
            added = tl.load(noise + sample * noise_sample + pixel, mask=inside, other=0.0).to(tl.float32)
            product -= g * added[:, None]
        sum += tl.sum(g, axis=0)
        tl.store(dz + place, g.to(dz.dtype.element_ty), mask=mask)
        product_sum += tl.sum(product, axis=0)
    place = (sample * chunks + chunk) * channels + column
    tl.store(sums + place, sum, mask=column_inside)
    tl.store(products + place, product_sum, mask=column_inside)
