"""The mapping network: latents z and classes c to styles w.

    w = fc_n o ... o fc_0 ([z', c'])       z' = z / rms(z),   c' = embed(c) / rms(embed(c))
    truncated                              w_avg + psi (w - w_avg)

with leaky ReLU after every layer and a learning-rate multiplier of 0.01. w_avg is the running mean of w over training.
Sources: Karras et al. 2019 (StyleGAN), sections 2 and B; 2020 (StyleGAN2-ADA), appendix for class-conditional networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gan_fast.models.stylegan2.layers import FullyConnectedLayer, check_batch, normalize_2nd_moment, own_precision


class MappingNetwork(nn.Module):
    """`[N, z_dim]` and `[N, c_dim]` to `[N, num_ws, w_dim]`, or `[N, w_dim]` where `num_ws` is None.

    A z_dim of 0 maps classes alone (in the critic), a c_dim of 0 latents alone. `w_avg_beta=None` keeps no mean, and
    then there is no truncation.
    """

    embed: FullyConnectedLayer
    fc0: FullyConnectedLayer
    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,
    ) -> None:
        super().__init__()
        if num_layers < (0 if c_dim > 0 else 1):
            raise ValueError(
                f"num_layers must be at least 1, or 0 for the embedding of classes alone, got {num_layers}"
            )
        if z_dim < 0 or c_dim < 0 or z_dim + c_dim == 0:
            raise ValueError(f"a mapping network needs z_dim or c_dim to be positive, got {z_dim} and {c_dim}")
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, w_avg_beta
        embed_features = 0 if c_dim == 0 else w_dim if embed_features is None else embed_features
        layer_features = w_dim if layer_features is None else layer_features
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        sizes = [z_dim + embed_features, *[layer_features] * (num_layers - 1), w_dim]
        for index in range(num_layers):
            layer = FullyConnectedLayer(
                sizes[index], sizes[index + 1], activation=activation, lr_multiplier=lr_multiplier
            )
            setattr(self, f"fc{index}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool | None = None,
        skip_w_avg_update: bool = False,
    ) -> Tensor:
        """w, differentiable to any order.

        Args:
            z: latents `[N, z_dim]`, N(0, I); None where z_dim is 0.
            c: classes `[N, c_dim]`, one-hot or any mixture; ignored where c_dim is 0.
            truncation_psi: 1 leaves w as it is, 0 is the mean.
            truncation_cutoff: truncate only the first so many of the `num_ws` layers. Default: all.
            update_emas: move w_avg. Default: in train mode.
            skip_w_avg_update: do not move w_avg, whatever else was said.
        """
        weight = next(self.parameters())
        parts = []
        if self.z_dim > 0:
            if z is None:
                raise ValueError(f"the mapping network needs latents z [N, {self.z_dim}], got None")
            check_batch("z", z, self.z_dim)
            parts.append(normalize_2nd_moment(z.to(weight.dtype)))
        if self.c_dim > 0:
            if c is None:
                raise ValueError(f"this network is class-conditional: give it c [N, {self.c_dim}], one-hot")
            check_batch("c", c, self.c_dim)
            with own_precision(c):
                parts.append(normalize_2nd_moment(self.embed(c.to(weight.dtype))))
        # shape[0] and not len(), which would make the batch of an exported network a constant
        if len(parts) == 2 and parts[0].shape[0] != parts[1].shape[0]:
            raise ValueError(f"z and c must be of one batch, got {len(parts[0])} and {len(parts[1])} samples")
        x = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        with own_precision(x):
            for index in range(self.num_layers):
                x = getattr(self, f"fc{index}")(x)
        moves = self.training if update_emas is None else update_emas
        if moves and not skip_w_avg_update and self.w_avg_beta is not None and self.num_ws is not None:
            with torch.no_grad():
                self.w_avg.lerp_(x.detach().mean(0).to(self.w_avg.dtype), 1 - self.w_avg_beta)
        if self.num_ws is not None:
            x = x.unsqueeze(1).repeat(1, self.num_ws, 1)
        return x if truncation_psi == 1 else self.truncate(x, truncation_psi, truncation_cutoff)

    def truncate(self, ws: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """w_avg + psi (w - w_avg) on the first `cutoff` layers of `[N, num_ws, w_dim]`, or on all."""
        if self.w_avg_beta is None or self.num_ws is None:
            raise ValueError("this mapping network keeps no w_avg, so there is nothing to truncate towards")
        moved = self.w_avg.to(ws.dtype).lerp(ws if cutoff is None else ws[:, :cutoff], psi)
        return moved if cutoff is None else torch.cat([moved, ws[:, cutoff:]], 1)
