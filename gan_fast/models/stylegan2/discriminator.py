"""The critic: images, from high resolution down to 4x4, to one logit each.

    block    conv0, then conv1 down x2;  resnet: (y + down(skip x)) / sqrt 2;  skip: x + fromRGB(down(image))
    4x4      minibatch deviation, conv, fc, out;  with classes: logit = <out, mapping(c)> / sqrt(cmap_dim)

Sources: Karras et al. 2020 (StyleGAN2), figure 7; the projection of classes: Miyato and Koyama, "cGANs with Projection
Discriminator", 2018, as in Karras et al. 2020 (StyleGAN2-ADA).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
    low_pass,
    low_precision_from,
    own_precision,
)
from gan_fast.models.stylegan2.mapping import MappingNetwork
from gan_fast.penalties import MinibatchStdDev


class DiscriminatorBlock(Precision):
    """One resolution: features `[N, in, R, R]` and image `[N, C, R, R]` to features `[N, out, R/2, R/2]`.

    The first block has no features yet (in_channels 0) and starts from the image.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        *,
        architecture: str,
        activation: str,
        resample_filter: Sequence[float],
        conv_clamp: float | None,
        low_precision: str | None,
        channels_last: bool | None,
    ) -> None:
        super().__init__(low_precision, channels_last)
        self.in_channels, self.resolution, self.architecture = in_channels, resolution, architecture
        self.register_buffer("resample_filter", low_pass(resample_filter))
        shared: dict[str, Any] = {"resample_filter": resample_filter, "conv_clamp": conv_clamp}
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, tmp_channels, 1, activation=activation, **shared)
        self.conv0 = Conv2dLayer(tmp_channels, tmp_channels, 3, activation=activation, **shared)
        self.conv1 = Conv2dLayer(tmp_channels, out_channels, 3, activation=activation, down=2, **shared)
        if architecture == "resnet":
            self.skip = Conv2dLayer(tmp_channels, out_channels, 1, bias=False, down=2, resample_filter=resample_filter)

    def forward(
        self, x: Tensor | None, img: Tensor | None, *, force_fp32: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        weight = self.conv0.weight
        if x is not None:
            x = self.place(x, weight, force_fp32)
        if self.in_channels == 0 or self.architecture == "skip":
            assert img is not None
            y = self.fromrgb(self.place(img, weight, force_fp32))
            x = y if x is None else x + y
            img = ops.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            skipped = self.skip(x, gain=math.sqrt(0.5))
            x = skipped + self.conv1(self.conv0(x), gain=math.sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x))
        return x, img


class DiscriminatorEpilogue(Precision):
    """Features `[N, in, 4, 4]` (and, in a skip critic, the image at 4x4) to logits `[N, 1]`, in full precision."""

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        *,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
        channels_last: bool | None = None,
    ) -> None:
        super().__init__(None, channels_last)
        self.cmap_dim, self.architecture = cmap_dim, architecture
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation=activation)
        self.mbstd = MinibatchStdDev(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = Conv2dLayer(
            in_channels + mbstd_num_channels, in_channels, 3, activation=activation, conv_clamp=conv_clamp
        )
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, cmap_dim or 1)

    def forward(self, x: Tensor, img: Tensor | None, cmap: Tensor | None) -> Tensor:
        weight = self.conv.weight
        x = self.place(x, weight, force_fp32=True)
        if self.architecture == "skip":
            assert img is not None
            x = x + self.fromrgb(self.place(img, weight, force_fp32=True))
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if cmap is None:
            return x
        return (x * cmap).sum(1, keepdim=True) / math.sqrt(self.cmap_dim)


class Discriminator(nn.Module):
    """Images `[N, img_channels, R, R]` and classes `[N, c_dim]` to raw logits `[N, 1]`, in the weights' dtype.

    Parameter and buffer names and the arguments are those of StyleGAN2-ADA's PyTorch networks. The minibatch deviation
    mixes samples; `epilogue_kwargs={"mbstd_num_channels": 0}` leaves it out.

    Args:
        cmap_dim: length of a mapped class; default: the feature maps at 4x4.
        block_kwargs: activation, resample_filter, freeze_layers (so many layers, from the highest resolution on, take
            no gradient).
        mapping_kwargs: of the classes' `MappingNetwork`.
        epilogue_kwargs: mbstd_group_size, mbstd_num_channels, activation.
        num_fp16_res, low_precision, conv_clamp, channels_last: as of `SynthesisNetwork`.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        cmap_dim: int | None = None,
        block_kwargs: dict[str, Any] | None = None,
        mapping_kwargs: dict[str, Any] | None = None,
        epilogue_kwargs: dict[str, Any] | None = None,
        *,
        low_precision: str = "fp16",
        channels_last: bool | None = None,
    ) -> None:
        super().__init__()
        check_resolution(img_resolution, at_least=8)
        check_choice("architecture", architecture, ARCHITECTURES)
        check_positive(img_channels=img_channels, channel_base=channel_base, channel_max=channel_max)
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.init_kwargs: dict[str, Any] = {
            "c_dim": c_dim,
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "architecture": architecture,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "num_fp16_res": num_fp16_res,
            "conv_clamp": conv_clamp,
            "cmap_dim": cmap_dim,
            "block_kwargs": dict(block_kwargs or {}),
            "mapping_kwargs": dict(mapping_kwargs or {}),
            "epilogue_kwargs": dict(epilogue_kwargs or {}),
            "low_precision": low_precision,
            "channels_last": channels_last,
        }
        settings = dict(block_kwargs or {})
        freeze_layers = settings.pop("freeze_layers", 0)
        settings.pop("fp16_channels_last", None)
        activation = settings.pop("activation", "lrelu")
        resample_filter = settings.pop("resample_filter", (1, 3, 3, 1))
        if settings:
            raise ValueError(f"block_kwargs has unknown settings: {', '.join(sorted(settings))}")
        sides = [4 << step for step in range((img_resolution // 4).bit_length())]
        widths = {side: channels_at(side, channel_base, channel_max) for side in sides}
        self.block_resolutions = sides[:0:-1]
        low_from = low_precision_from(img_resolution, num_fp16_res)
        cmap_dim = 0 if c_dim == 0 else widths[4] if cmap_dim is None else cmap_dim
        for resolution in self.block_resolutions:
            block = DiscriminatorBlock(
                widths[resolution] if resolution < img_resolution else 0,
                widths[resolution],
                widths[resolution // 2],
                resolution,
                img_channels,
                architecture=architecture,
                activation=activation,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
                low_precision=low_precision if num_fp16_res and resolution >= low_from else None,
                channels_last=channels_last,
            )
            setattr(self, f"b{resolution}", block)
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, num_ws=None, w_avg_beta=None, **(mapping_kwargs or {}))
        self.b4 = DiscriminatorEpilogue(
            widths[4],
            cmap_dim,
            4,
            img_channels,
            architecture=architecture,
            conv_clamp=conv_clamp,
            channels_last=channels_last,
            **(epilogue_kwargs or {}),
        )
        frozen = [layer for r in self.block_resolutions for layer in getattr(self, f"b{r}").children()]
        for layer in frozen[:freeze_layers]:
            layer.requires_grad_(False)

    def forward(
        self,
        img: Tensor,
        c: Tensor | None = None,
        update_emas: bool | None = None,
        force_fp32: bool = False,
    ) -> Tensor:
        """Logits, differentiable to any order. `update_emas` is accepted for other implementations' callers."""
        check_batch("img", img, self.img_channels, self.img_resolution, self.img_resolution)
        img = img.to(self.b4.conv.weight.dtype)
        x: Tensor | None = None
        picture: Tensor | None = img
        with own_precision(img):
            for resolution in self.block_resolutions:
                x, picture = getattr(self, f"b{resolution}")(x, picture, force_fp32=force_fp32)
            cmap = self.mapping(None, c) if self.c_dim > 0 else None
            assert x is not None
            return self.b4(x, picture, cmap)
