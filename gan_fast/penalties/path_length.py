"""Path length regularisation of a generator: a step in latent space moves the image equally far everywhere.

    l_i = |J_i^T y_i|_2 / sqrt(L),   J_i = d image_i / d latents_i,   y_i ~ N(0, I) / sqrt(H W)
    a  <- a + decay (mean l - a)
    weight * E (l_i - a)^2

Source: Karras et al. 2020 (StyleGAN2), equation 4.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gan_fast.reference.adversarial_loss import accumulate_dtype


class PathLengthPenalty(nn.Module):
    """weight * E (|J^T y| - a)^2 with a running mean a of the path lengths |J^T y|.

        penalty = PathLengthPenalty()
        latents = mapping(z)                                  # requires grad
        loss = penalty(synthesis(latents), latents) * every   # lazily: on every fourth step, times four

    The noise y has a standard deviation of 1/sqrt(H W), so that a length does not grow with the resolution. With one
    latent for each of L layers, `[N, L, D]`, the squared length is averaged over layers.

    The running mean starts at 0, moves by `decay` of its distance at each call in train mode, before the penalty is
    taken, and stands still in eval mode. It is a constant to the gradient. It is the buffer `mean`, so `state_dict` has
    it; keep the module on the images' device and in float32 or float64. Under `torch.distributed` with an initialised
    default group the lengths are averaged over all ranks (one all-reduce of one number), so that every rank has the
    mean of the whole batch: all ranks must make the call.

    Args:
        weight: of the penalty; StyleGAN2's is 2.
        decay: how far the mean moves at each call, in (0, 1].
    """

    mean: Tensor

    def __init__(self, weight: float = 2.0, decay: float = 0.01) -> None:
        super().__init__()
        if not 0 < decay <= 1:
            raise ValueError(f"PathLengthPenalty got decay={decay}, expected a number in (0, 1]: StyleGAN2's is 0.01")
        self.weight = weight
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor, latents: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The penalty, 0-dim, float32 (float64 for float64 latents), differentiable for the generator's parameters.

        Finite where the gradient is exactly zero: the derivative of the length is taken as 0 there. Lengths are
        computed in float32 for half precision.

        Args:
            images: `[N, C, H, W]` (or `[N, C, *]`), computed from `latents` with the graph still there.
            latents: `[N, D]` or `[N, L, D]`, requiring grad.
            generator: draws y, on the images' device; the global one by default.

        Raises:
            ValueError: images that do not depend on `latents`, latents that do not require grad, an empty batch, shapes
                or devices that do not fit.
            RuntimeError: under `torch.no_grad`.
        """
        self._check(images, latents)
        dtype = accumulate_dtype(images)
        y = torch.randn(images.shape, generator=generator, dtype=dtype, device=images.device)
        y = (y / math.sqrt(math.prod(images.shape[2:]))).to(images.dtype)
        (g,) = torch.autograd.grad(images, latents, y, create_graph=True, allow_unused=True)
        if g is None:
            raise ValueError(
                "the images given to PathLengthPenalty do not depend on the latents: pass the very tensor that the "
                "generator was called with, such as w = mapping(z); images = synthesis(w)"
            )
        layers = latents.shape[1] if latents.dim() == 3 else 1
        lengths = torch.linalg.vector_norm(g.to(accumulate_dtype(g)).flatten(1), dim=1) / math.sqrt(layers)
        mean = self._moved_mean(lengths.detach().mean()) if self.training else self.mean
        return self.weight * (lengths - mean.to(lengths.dtype)).square().mean()

    @torch.no_grad()
    def _moved_mean(self, length: Tensor) -> Tensor:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(length)
            length = length / dist.get_world_size()
        # The penalty must not read the buffer that was written: compiled by torch 2.11, a gradient flows through it.
        moved = torch.lerp(self.mean, length.to(self.mean.dtype), self.decay)
        self.mean.copy_(moved)
        return moved

    def _check(self, images: Tensor, latents: Tensor) -> None:
        shapes = f"images {list(images.shape)} and latents {list(latents.shape)}"
        if images.dim() < 2 or latents.dim() not in (2, 3) or len(images) != len(latents):
            raise ValueError(
                f"PathLengthPenalty got {shapes}, expected [N, C, H, W] and [N, D] or [N, L, D] of one batch"
            )
        if images.numel() == 0 or latents.numel() == 0:
            raise ValueError(f"PathLengthPenalty got {shapes}: an empty batch has no path length")
        if not images.device == latents.device == self.mean.device:
            raise ValueError(
                f"PathLengthPenalty is on {self.mean.device}, the images are on {images.device} and the latents on "
                f"{latents.device}: move all to one device with .to(...)"
            )
        if not torch.is_grad_enabled():
            raise RuntimeError(
                "PathLengthPenalty was called under torch.no_grad(): it needs the gradient of the images, so call the "
                "generator and the penalty with gradients enabled"
            )
        if not latents.requires_grad:
            raise ValueError(
                "PathLengthPenalty got latents that do not require grad: call latents.requires_grad_() before the "
                "generator, or pass the output of a mapping network that is being trained"
            )
        if not images.requires_grad:
            raise ValueError(
                "PathLengthPenalty got images without a graph (detached, or computed under no_grad): pass the "
                "generator's output itself"
            )

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}, decay={self.decay:g}"
