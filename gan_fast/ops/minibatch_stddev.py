"""The deviation of a group of samples as a channel beside them, by which a critic sees a lack of variety.

y_g,f = mean_{c,h,w} sqrt(var_{i in group g} x_i,f,c,h,w + 1e-8)
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast.reference.adversarial_loss import accumulate_dtype


def minibatch_stddev(x: Tensor, group_size: int | None = 4, num_channels: int = 1) -> Tensor:
    """Append `num_channels` channels that hold the standard deviation over a group of samples.

    Args:
        x: `[N, C, *]` with any number of dimensions behind the channels: images `[N, C, H, W]`, sound `[N, C, L]`,
            features `[N, C]`. Any floating dtype.
        group_size: samples in a group, or None for the whole batch. The batch is cut into n = max(1, N // group_size)
            groups, sample i in group i mod n. Where `group_size` divides N these are StyleGAN2's groups; where it does
            not, some groups are larger: none is smaller than `group_size` unless the batch is. A group of one sample
            has deviation zero.
        num_channels: the C channels are cut into so many runs; within a run and a group the deviation of every place is
            averaged to one number.

    Returns:
        `[N, C + num_channels, *]` in the dtype and the layout of x; statistics in float32 for half precision.
        Differentiable to any order, with finite derivatives where all samples are equal. It mixes the samples of a
        batch: the gradient of one sample's logit reaches the others' images.

    Raises:
        ValueError: an empty batch, fewer than two dimensions, channels that `num_channels` does not divide, numbers
            below 1.

    Source: Karras et al. 2018 (ProGAN), section 3; the groups from Karras et al. 2020 (StyleGAN2).
    """
    check_groups("minibatch_stddev", group_size, num_channels)
    if x.dim() < 2 or x.shape[0] == 0:
        raise ValueError(f"minibatch_stddev got shape {list(x.shape)}, expected [N, C, ...] with at least one sample")
    samples, width, *places = x.shape
    if width % num_channels:
        raise ValueError(
            f"minibatch_stddev got {width} channels and num_channels={num_channels}: {width} is not divisible by "
            f"{num_channels}"
        )
    groups = 1 if group_size is None else max(1, samples // group_size)
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
    deviation = deviation.view(groups, num_channels, -1).mean(2).to(x.dtype)
    index = torch.arange(samples, device=x.device) % groups
    deviation = deviation[index].view(samples, num_channels, *[1] * len(places))
    deviation = deviation.expand(-1, -1, *places)
    for layout in (torch.channels_last, torch.channels_last_3d):  # cat keeps a layout that all its inputs have
        if x.is_contiguous(memory_format=layout):
            deviation = deviation.contiguous(memory_format=layout)
    return torch.cat([x, deviation], 1)


def check_groups(who: str, group_size: int | None, channels: int) -> None:
    """Raises `ValueError` for numbers below 1."""
    if group_size is not None and group_size < 1:
        raise ValueError(f"{who} got group_size={group_size}, expected at least 1, or None for the batch")
    if channels < 1:
        raise ValueError(f"{who} got channels={channels}, expected at least 1")
