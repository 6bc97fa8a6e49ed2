"""Layers that let a critic see its batch.

    MinibatchStdDev          y_g,f = mean_{c,h,w} sqrt(var_{i in group g} x_i,f,c,h,w + 1e-8), as channels beside x
    MinibatchDiscrimination  o_i,b = sum_{j != i} exp(-|M_i,b - M_j,b|_1),  M_i = x_i T, as features beside x

Both mix the samples of a batch: the gradient of one sample's logit reaches the others' images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gan_fast.reference.adversarial_loss import accumulate_dtype


class MinibatchStdDev(nn.Module):
    """Adds `channels` channels that hold the standard deviation over a group of samples.

    `[N, C, *]` to `[N, C + channels, *]`, with any number of dimensions behind the channels: images `[N, C, H, W]`,
    sound `[N, C, L]`, features `[N, C]`. The C channels are cut into `channels` runs of C / channels; within a run and
    a group the deviation of every place is averaged to one number.

    The batch is cut into n = max(1, N // group_size) groups, sample i in group i mod n. Where `group_size` divides N
    these are StyleGAN2's groups; where it does not, some groups are larger: none is smaller than `group_size` unless
    the batch is. `group_size=None` takes the batch as one group. A group of one sample has deviation zero.

    Any floating dtype; statistics in float32 for half precision, the result in the dtype of `x`. Differentiable to any
    order, with finite derivatives where all samples are equal.
    Source: Karras et al. 2018 (ProGAN), section 3; the groups from Karras et al. 2020 (StyleGAN2).
    """

    def __init__(self, group_size: int | None = 4, channels: int = 1) -> None:
        super().__init__()
        if group_size is not None and group_size < 1:
            raise ValueError(f"MinibatchStdDev got group_size={group_size}, expected at least 1, or None for the batch")
        if channels < 1:
            raise ValueError(f"MinibatchStdDev got channels={channels}, expected at least 1")
        self.group_size = group_size
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, *]` to `[N, C + channels, *]`. Raises `ValueError` for an empty batch and indivisible channels."""
        if x.dim() < 2 or x.shape[0] == 0:
            raise ValueError(
                f"MinibatchStdDev got shape {list(x.shape)}, expected [N, C, ...] with at least one sample"
            )
        samples, width, *places = x.shape
        if width % self.channels:
            raise ValueError(
                f"MinibatchStdDev(channels={self.channels}) got {width} channels: {width} is not divisible by "
                f"{self.channels}"
            )
        groups = 1 if self.group_size is None else max(1, samples // self.group_size)
        rows, short = -(-samples // groups), -samples % groups
        values = x.to(accumulate_dtype(x)).flatten(1)
        if short:  # the last groups lack a sample: a row of zeros that is taken out of the deviations again
            values = torch.cat([values, values.new_zeros(short, values.shape[1])])
        values = values.view(rows, groups, -1)
        counts = values.new_full((groups, 1), rows)
        if short:
            counts[groups - short :] -= 1
        deviations = values - values.sum(0) / counts
        if short:
            present = torch.arange(rows * groups, device=x.device).view(rows, groups, 1) < samples
            deviations = deviations * present
        deviation = (deviations.square().sum(0) / counts + 1e-8).sqrt()
        deviation = deviation.view(groups, self.channels, -1).mean(2).to(x.dtype)
        index = torch.arange(samples, device=x.device) % groups
        deviation = deviation[index].view(samples, self.channels, *[1] * len(places))
        deviation = deviation.expand(-1, -1, *places)
        for layout in (torch.channels_last, torch.channels_last_3d):  # cat keeps a layout that all its inputs have
            if x.is_contiguous(memory_format=layout):
                deviation = deviation.contiguous(memory_format=layout)
        return torch.cat([x, deviation], 1)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, channels={self.channels}"


class MinibatchDiscrimination(nn.Module):
    """Adds `kernels` features that say how close a sample is to the others of its batch.

    `[N, in_features]` to `[N, in_features + kernels]`: with M_i = x_i T, T `[in_features, kernels, kernel_dim]`,

        o_i,b = sum_{j != i} exp(-|M_i,b - M_j,b|_1)

    The paper's sum runs over all j; its term j = i is exactly 1 and is left out here, as in its authors' code: a
    constant is the next layer's bias, and in half precision it would drown the rest. One sample alone gets zeros.
    Time and memory grow with N^2 kernels kernel_dim.

    Any floating dtype; distances and sums in float32 for half precision, the result in the dtype of `x`.
    Differentiable to any order (the norm's derivative at equal samples is 0). T starts normal with standard deviation
    1/sqrt(in_features), so that M has the scale of x.
    Source: Salimans et al. 2016, section 3.2.
    """

    def __init__(self, in_features: int, kernels: int, kernel_dim: int) -> None:
        super().__init__()
        if min(in_features, kernels, kernel_dim) < 1:
            raise ValueError(
                f"MinibatchDiscrimination got in_features={in_features}, kernels={kernels}, kernel_dim={kernel_dim}, "
                "expected at least 1 of each"
            )
        self.in_features, self.kernels, self.kernel_dim = in_features, kernels, kernel_dim
        self.weight = nn.Parameter(torch.empty(in_features, kernels, kernel_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw T anew."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in_features]` to `[N, in_features + kernels]`. Raises `ValueError` for any other shape."""
        if x.dim() != 2 or x.shape[1] != self.in_features or x.shape[0] == 0:
            raise ValueError(
                f"MinibatchDiscrimination got shape {list(x.shape)}, expected [N, {self.in_features}] with at least "
                "one sample: flatten feature maps first"
            )
        projected = (x @ self.weight.flatten(1)).view(-1, self.kernels, self.kernel_dim)
        projected = projected.to(accumulate_dtype(projected))
        closeness = (projected[:, None] - projected[None]).abs().sum(3).neg().exp()
        others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        return torch.cat([x, (closeness * others[:, :, None]).sum(1).to(x.dtype)], 1)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, kernels={self.kernels}, kernel_dim={self.kernel_dim}"
