"""Layers that let a critic see its batch.

    MinibatchStdDev          y_g,f = mean_{c,h,w} sqrt(var_{i in group g} x_i,f,c,h,w + 1e-8), as channels beside x
    MinibatchDiscrimination  o_i,b = sum_{j != i} exp(-|M_i,b - M_j,b|_1),  M_i = x_i T, as features beside x

Both mix the samples of a batch: the gradient of one sample's logit reaches the others' images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gan_fast.ops.minibatch_stddev import check_groups, minibatch_stddev
from gan_fast.reference.adversarial_loss import accumulate_dtype


class MinibatchStdDev(nn.Module):
    """`ops.minibatch_stddev` as a layer: `[N, C, *]` to `[N, C + channels, *]`, the deviations over a group of samples.

    Source: Karras et al. 2018 (ProGAN), section 3; the groups from Karras et al. 2020 (StyleGAN2).
    """

    def __init__(self, group_size: int | None = 4, channels: int = 1) -> None:
        super().__init__()
        check_groups("MinibatchStdDev", group_size, channels)
        self.group_size = group_size
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, *]` to `[N, C + channels, *]`. Raises `ValueError` for an empty batch and indivisible channels."""
        return minibatch_stddev(x, self.group_size, self.channels)

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
