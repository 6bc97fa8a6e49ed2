"""The generator: z to styles w, and from a learned 4x4 constant, block by block, to images.

    layer   y = clamp(gain lrelu(demod(conv(x, W s)) + strength noise + b))       s = affine(w)
    block   const or layer up x2, then layer;  skip: image = up(image) + toRGB(y);  resnet: (y + up(skip x)) / sqrt 2

Demodulation divides each output map by the norm of its modulated kernel. Source: Karras et al. 2020 (StyleGAN2),
section 2 and figures 2 and 7. Half precision with clamped layers: Karras et al. 2020 (StyleGAN2-ADA), appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gan_fast import ops
from gan_fast.models.stylegan2.layers import (
    ARCHITECTURES,
    Conv2dLayer,
    FullyConnectedLayer,
    Precision,
    channels_at,
    check_batch,
    check_choice,
    check_positive,
    check_resolution,
    default_gain,
    low_pass,
    low_precision_from,
    own_precision,
)
from gan_fast.models.stylegan2.mapping import MappingNetwork

NOISE_MODES = ("random", "const", "none")
NoiseSource = torch.Generator | Sequence[torch.Generator] | Callable[[int, int], Tensor] | None


def draw_noise(samples: int, side: int, like: Tensor, source: NoiseSource) -> Tensor:
    """N(0, 1) `[N, 1, side, side]` in `like`'s dtype on its device.

    From a sequence of N streams each sample is drawn from its own, so that it belongs to its seed alone. A stream of
    another device is drawn from there and moved. A function is called with `samples` and `side` and gives the numbers.
    """
    if source is None:
        return torch.randn(samples, 1, side, side, dtype=like.dtype, device=like.device)
    if isinstance(source, torch.Generator):
        drawn = torch.randn(samples, 1, side, side, generator=source, dtype=like.dtype, device=source.device)
        return drawn.to(like.device)
    if callable(source):
        return source(samples, side).to(like)
    if len(source) != samples:
        raise ValueError(f"noise_generator must be one stream or one for each of {samples} samples, got {len(source)}")
    each = [torch.randn(1, side, side, generator=s, dtype=like.dtype, device=s.device).to(like.device) for s in source]
    return torch.stack(each) if each else like.new_empty(0, 1, side, side)


class SynthesisLayer(nn.Module):
    """`[N, in, R / up, R / up]` and styles `[N, w_dim]` to `[N, out, R, R]`."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.resolution, self.up = in_channels, out_channels, resolution, up
        self.use_noise, self.activation, self.conv_clamp = use_noise, activation, conv_clamp
        self.padding = kernel_size // 2
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        # Demodulation makes the scale of the weights irrelevant: they get no run-time gain.
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("resample_filter", low_pass(resample_filter))

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise_mode: str = "random",
        noise_generator: NoiseSource = None,
        gain: float = 1.0,
    ) -> Tensor:
        noise = None
        if self.use_noise and noise_mode == "random":
            drawn = draw_noise(len(x), self.resolution, self.noise_strength, noise_generator)
            noise = drawn * self.noise_strength
        elif self.use_noise and noise_mode == "const":
            noise = self.noise_const * self.noise_strength
        return ops.modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            noise,
            up=self.up,
            padding=self.padding,
            resample_filter=self.resample_filter,
            # Trained networks hold the kernels of upsampling layers in the orientation of a transposed convolution.
            flip_weight=self.up == 1,
            bias=self.bias,
            act=self.activation,
            gain=default_gain(self.activation) * gain,
            clamp=None if self.conv_clamp is None else self.conv_clamp * gain,
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, resolution={self.resolution}, up={self.up}"


class ToRGBLayer(nn.Module):
    """`[N, in, R, R]` and styles `[N, w_dim]` to an image `[N, C, R, R]`: modulated, not demodulated, linear."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, kernel_size: int = 1, conv_clamp: float | None = None
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.conv_clamp = in_channels, out_channels, conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return ops.modulated_conv2d(
            x,
            self.weight,
            self.affine(w) * self.weight_gain,
            padding=self.padding,
            demodulate=False,
            bias=self.bias,
            act="linear",
            clamp=self.conv_clamp,
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


class SynthesisBlock(Precision):
    """One resolution: features `[N, in, R/2, R/2]` and image `[N, C, R/2, R/2]` to those at R."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        *,
        architecture: str,
        resample_filter: Sequence[float],
        conv_clamp: float | None,
        low_precision: str | None,
        channels_last: bool | None,
        **layer_kwargs: Any,
    ) -> None:
        super().__init__(low_precision, channels_last)
        self.in_channels, self.resolution, self.architecture = in_channels, resolution, architecture
        shared = {"resample_filter": resample_filter, "conv_clamp": conv_clamp, **layer_kwargs}
        self.register_buffer("resample_filter", low_pass(resample_filter))
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, **shared)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **shared)
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = int(is_last or architecture == "skip")
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp=conv_clamp)
        if in_channels and architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2, resample_filter=resample_filter)

    def forward(
        self, x: Tensor | None, img: Tensor | None, ws: Tensor, *, force_fp32: bool = False, **layer_kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Features in the block's precision, image in that of the weights. `ws` is `[N, num_conv + num_torgb, w_dim]`.

        `layer_kwargs`: noise_mode, noise_generator.
        """
        weight = self.conv1.weight
        if x is None:
            x = self.place(self.const.expand(ws.shape[0], -1, -1, -1), weight, force_fp32)
            x = self.conv1(x, ws[:, 0], **layer_kwargs)
        else:
            x = self.place(x, weight, force_fp32)
            if self.architecture == "resnet":
                # The two variances add up to one again.
                skipped = self.skip(x, gain=math.sqrt(0.5))
                x = self.conv0(x, ws[:, 0], **layer_kwargs)
                x = skipped + self.conv1(x, ws[:, 1], gain=math.sqrt(0.5), **layer_kwargs)
            else:
                x = self.conv0(x, ws[:, 0], **layer_kwargs)
                x = self.conv1(x, ws[:, 1], **layer_kwargs)
        if img is not None:
            img = ops.upsample2d(img, self.resample_filter)
        if self.num_torgb:
            y = self.torgb(x, ws[:, self.num_conv]).to(weight.dtype)
            img = y if img is None else img + y.to(memory_format=torch.contiguous_format)
        return x, img


class SynthesisNetwork(nn.Module):
    """Styles `[N, num_ws, w_dim]` to images `[N, img_channels, R, R]`, about in [-1, 1], in the weights' dtype.

    Args:
        channel_base, channel_max: feature maps at a side R: channel_base / R, at most channel_max.
        num_fp16_res: how many of the highest resolutions run in half precision (`low_precision`: "fp16" or "bf16").
        architecture: "skip" adds up one image per resolution, "resnet" joins blocks by residual paths, "orig" neither.
        conv_clamp: clamp of every layer's output; 256 with fp16, None for no clamp.
        channels_last: memory format of the features; None chooses.
        fp16_channels_last, fused_modconv_default: accepted from saved settings; the engine chooses.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        *,
        architecture: str = "skip",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        kernel_size: int = 3,
        use_noise: bool = True,
        activation: str = "lrelu",
        low_precision: str = "fp16",
        channels_last: bool | None = None,
        fp16_channels_last: bool | None = None,
        fused_modconv_default: Any = None,
    ) -> None:
        super().__init__()
        check_resolution(img_resolution)
        check_choice("architecture", architecture, ARCHITECTURES)
        check_positive(w_dim=w_dim, img_channels=img_channels, channel_base=channel_base, channel_max=channel_max)
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions = [4 << step for step in range((img_resolution // 4).bit_length())]
        low_from = low_precision_from(img_resolution, num_fp16_res)
        self.num_ws = 0
        in_channels = 0
        for resolution in self.block_resolutions:
            out_channels = channels_at(resolution, channel_base, channel_max)
            block = SynthesisBlock(
                in_channels,
                out_channels,
                w_dim,
                resolution,
                img_channels,
                is_last=resolution == img_resolution,
                architecture=architecture,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
                low_precision=low_precision if num_fp16_res and resolution >= low_from else None,
                channels_last=channels_last,
                kernel_size=kernel_size,
                use_noise=use_noise,
                activation=activation,
            )
            # A block's toRGB shares its style with the next block's first layer; the last one has its own.
            self.num_ws += block.num_conv + (block.num_torgb if resolution == img_resolution else 0)
            setattr(self, f"b{resolution}", block)
            in_channels = out_channels

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "random",
        noise_generator: NoiseSource = None,
        force_fp32: bool = False,
        **ignored: Any,
    ) -> Tensor:
        """Images, differentiable to any order.

        Args:
            ws: `[N, num_ws, w_dim]`.
            noise_mode: "random" draws anew, "const" uses the buffers `noise_const`, "none" adds nothing.
            noise_generator: of random noise: one stream, or one for each sample, which then belongs to its seed alone;
                or a function of (N, R) that gives `[N, 1, R, R]`.
            force_fp32: run every block in the dtype of the weights.
            ignored: `fused_modconv` and `update_emas`, which other implementations take here.
        """
        unknown = set(ignored) - {"fused_modconv", "update_emas"}
        if unknown:
            raise TypeError(f"synthesis got unknown arguments {', '.join(sorted(unknown))}")
        check_batch("ws", ws, self.num_ws, self.w_dim)
        check_choice("noise_mode", noise_mode, NOISE_MODES)
        x: Tensor | None = None
        img: Tensor | None = None
        first = 0
        with own_precision(ws):
            for resolution in self.block_resolutions:
                block = getattr(self, f"b{resolution}")
                styles = ws[:, first : first + block.num_conv + block.num_torgb].to(block.conv1.weight.dtype)
                x, img = block(
                    x, img, styles, force_fp32=force_fp32, noise_mode=noise_mode, noise_generator=noise_generator
                )
                first += block.num_conv
        assert img is not None  # the last block has a toRGB in every architecture
        return img


class Generator(nn.Module):
    """Latents `[N, z_dim]` and classes `[N, c_dim]` to images `[N, img_channels, R, R]`, about in [-1, 1].

    Parameter and buffer names are those of StyleGAN2-ADA's PyTorch networks, and so are the arguments: a `state_dict`
    of one loads here as it is. See `MappingNetwork` and `SynthesisNetwork` for `mapping_kwargs` and `synthesis_kwargs`.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict[str, Any] | None = None,
        synthesis_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_positive(z_dim=z_dim)
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.init_kwargs: dict[str, Any] = {
            "z_dim": z_dim,
            "c_dim": c_dim,
            "w_dim": w_dim,
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "mapping_kwargs": dict(mapping_kwargs or {}),
            "synthesis_kwargs": dict(synthesis_kwargs or {}),
        }
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **(synthesis_kwargs or {}))
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool | None = None,
        skip_w_avg_update: bool = False,
        **synthesis_kwargs: Any,
    ) -> Tensor:
        """Images; `synthesis_kwargs`: noise_mode, noise_generator, force_fp32."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas, skip_w_avg_update)
        return self.synthesis(ws, **synthesis_kwargs)
