"""StyleGAN2's networks written down a second time, as formulas on a state dict, for the tests to compare with.

Every kernel is built per sample, zeros are inserted where the paper says upsampling, nothing is fused or reordered, and
nothing comes from `gan_fast`. The state dict's names are the interface: they say which tensor is which.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def sub(state: State, prefix: str) -> State:
    return {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(prefix + ".")}


def fir(x: Tensor, f: Tensor, gain: float) -> Tensor:
    return F.conv2d(x, (gain * f).to(x.dtype).flip([0, 1]).repeat(x.shape[1], 1, 1, 1), groups=x.shape[1])


def up2(x: Tensor, f: Tensor, extra: int = 0) -> Tensor:
    """Pixels apart, zeros between them, low-pass filter of 4 taps; `extra` pixels around for a convolution to come."""
    zeros = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    zeros[:, :, ::2, ::2] = x
    return fir(F.pad(zeros, [2 + extra, 1 + extra] * 2), f, 4)


def blurred(x: Tensor, f: Tensor, extra: int = 0) -> Tensor:
    return fir(F.pad(x, [1 + extra, 1 + extra] * 2), f, 1)


def dense(state: State, x: Tensor, lr: float = 1.0) -> Tensor:
    return x @ (state["weight"] * lr / math.sqrt(state["weight"].shape[1])).t() + state["bias"] * lr


def lrelu(x: Tensor, gain: float, clamp: float | None) -> Tensor:
    y = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2) * gain
    return y if clamp is None else y.clamp(-clamp * gain, clamp * gain)


def unit(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def mapping(state: State, z: Tensor | None, c: Tensor | None) -> Tensor:
    parts = [unit(z)] if z is not None else []
    if "embed.weight" in state:
        parts.append(unit(dense(sub(state, "embed"), c)))
    x = torch.cat(parts, 1)
    index = 0
    while f"fc{index}.weight" in state:
        x = lrelu(dense(sub(state, f"fc{index}"), x, 0.01), 1, None)
        index += 1
    return x


def synthesis_layer(
    state: State, x: Tensor, w: Tensor, up: bool, noise: bool, gain: float, clamp: float | None
) -> Tensor:
    s = dense(sub(state, "affine"), w)
    out = []
    for i in range(len(x)):
        kernel = state["weight"] * s[i][None, :, None, None]
        kernel = kernel / (kernel.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        if up:  # a transposed convolution's kernel is turned round
            out.append(F.conv2d(up2(x[i : i + 1], state["resample_filter"], 1), kernel.flip([2, 3])))
        else:
            out.append(F.conv2d(x[i : i + 1], kernel, padding=1))
    y = torch.cat(out)
    if noise:
        y = y + state["noise_const"] * state["noise_strength"]
    return lrelu(y + state["bias"][None, :, None, None], gain, clamp)


def to_rgb(state: State, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    s = dense(sub(state, "affine"), w) / math.sqrt(x.shape[1])
    y = torch.einsum("nihw,oi,ni->nohw", x, state["weight"][:, :, 0, 0], s) + state["bias"][None, :, None, None]
    return y if clamp is None else y.clamp(-clamp, clamp)


def synthesis(state: State, ws: Tensor, architecture: str, noise: bool = True, clamp: float | None = None) -> Tensor:
    side, first, x, img = 4, 0, None, None
    while f"b{side}.conv1.weight" in state:
        block = sub(state, f"b{side}")
        root = math.sqrt(0.5) if architecture == "resnet" and x is not None else 1.0
        if x is None:
            x = block["const"].expand(len(ws), -1, -1, -1)
            layers = ["conv1"]
        else:
            layers = ["conv0", "conv1"]
        before = x
        for layer in layers:
            last = root if layer == "conv1" else 1.0
            x = synthesis_layer(sub(block, layer), x, ws[:, first], layer == "conv0", noise, last, clamp)
            first += 1
        if "skip.weight" in block:
            lifted = up2(before, block["resample_filter"])
            x = x + root * F.conv2d(lifted, block["skip.weight"] / math.sqrt(before.shape[1]))
        img = None if img is None else up2(img, block["resample_filter"])
        if "torgb.weight" in block:
            y = to_rgb(sub(block, "torgb"), x, ws[:, first], clamp)
            img = y if img is None else img + y
        side *= 2
    return img


def conv(state: State, x: Tensor, down: bool, gain: float, clamp: float | None, linear: bool = False) -> Tensor:
    weight = state["weight"] / math.sqrt(state["weight"][0].numel())
    extra = weight.shape[2] // 2
    if down:
        y = F.conv2d(blurred(x, state["resample_filter"], extra), weight, stride=2)
    else:
        y = F.conv2d(x, weight, padding=extra)
    return y * gain if linear else lrelu(y + state["bias"][None, :, None, None], gain, clamp)


def deviation(x: Tensor, group: int) -> Tensor:
    group = min(group, len(x))
    y = x.unflatten(0, (group, -1))
    y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean([1, 2, 3])
    return torch.cat([x, y.repeat(group)[:, None, None, None].expand(-1, 1, 4, 4)], 1)


def discriminator(state: State, img: Tensor, c: Tensor | None, architecture: str, clamp: float | None = None) -> Tensor:
    x, side = None, img.shape[-1]
    root = math.sqrt(0.5) if architecture == "resnet" else 1.0
    while side > 4:
        block = sub(state, f"b{side}")
        if "fromrgb.weight" in block:
            y = conv(sub(block, "fromrgb"), img, False, 1, clamp)
            x = y if x is None else x + y
            img = blurred(img, block["resample_filter"])[:, :, ::2, ::2]
        y = conv(sub(block, "conv1"), conv(sub(block, "conv0"), x, False, 1, clamp), True, root, clamp)
        x = y + conv(sub(block, "skip"), x, True, root, None, linear=True) if "skip.weight" in block else y
        side //= 2
    end = sub(state, "b4")
    if "fromrgb.weight" in end:
        x = x + conv(sub(end, "fromrgb"), img, False, 1, None)
    x = conv(sub(end, "conv"), deviation(x, 4), False, 1, clamp)
    x = dense(sub(end, "out"), lrelu(dense(sub(end, "fc"), x.flatten(1)), 1, None))
    if "mapping.embed.weight" in state:
        classes = mapping(sub(state, "mapping"), None, c)
        x = (x * classes).sum(1, keepdim=True) / math.sqrt(classes.shape[1])
    return x
