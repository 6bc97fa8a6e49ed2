"""Several processes as one: every rank holds the whole model and 1/world of each batch, and gradients are averaged.

    grad <- 1/world sum over ranks grad        one all-reduce of all gradients laid end to end

Started by `torchrun`, which sets RANK, WORLD_SIZE and LOCAL_RANK; without them there is one process and every call
here costs nothing. Every rank builds its networks from the same seed and draws from the same random streams, so
nothing needs to be broadcast. Gradients are averaged after the backward pass and not by DistributedDataParallel's
hooks, which do not survive a double backward.
"""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gan_fast import _average


class World(NamedTuple):
    """This process and how many there are."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def join(device_type: str) -> World:
    """The world torchrun started, joined over NCCL for CUDA and gloo otherwise; World() without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    if not dist.is_initialized():
        # Imported later (an optimiser does, by way of torch._dynamo), its functions' default arguments would hold the
        # group to the end of the process, and to leave it would not end its threads.
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
        if dist.get_backend() == "gloo":
            # Its threads, left to the end of the process, now and then abort a run that is done and saved: pytorch
            # issue 190489. To leave NCCL's group may mean to wait for ranks that are gone.
            atexit.register(_leave)
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace every gradient by its mean over the ranks."""
    if world.size == 1:
        return
    _average.average_gradients(parameters)


def mean(values: Tensor, world: World) -> Tensor:
    """The mean over the ranks; NaN where any rank has NaN, so that all of them notice."""
    if world.size > 1:
        dist.all_reduce(values)
        values = values / world.size
    return values


def gather(values: Tensor, world: World) -> Tensor:
    """The rows `[N, ...]` of all ranks, one rank's after the other's, `[world * N, ...]`; without gradient."""
    if world.size == 1:
        return values.detach()
    parts = [torch.empty_like(values) for _ in range(world.size)]
    dist.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


class _Mean(torch.autograd.Function):
    """y = 1/world sum over ranks x. Each rank's loss depends on every rank's x, so cotangents are averaged too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, world: World) -> Tensor:
        ctx.world = world
        return mean(x.clone(), world)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return mean(dy.clone(), ctx.world), None


def mean_with_gradient(values: Sequence[Tensor], world: World) -> list[Tensor]:
    """Each tensor's mean over the ranks, differentiable once, in one all-reduce there and one back.

    With parameters' gradients averaged over ranks afterwards, those are the gradients of the ranks' mean loss.
    """
    if world.size == 1 or not values:
        return list(values)
    flat: Tensor = _Mean.apply(torch.cat([value.reshape(-1) for value in values]), world)
    pieces = flat.split([value.numel() for value in values])
    return [piece.view(value.shape) for piece, value in zip(pieces, values, strict=True)]


def any_rank(flags: list[bool], world: World, device: torch.device) -> list[bool]:
    """Each flag, true where any rank says so: how ranks agree to stop or to save."""
    if world.size == 1:
        return flags
    votes: Tensor = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return [bool(vote) for vote in votes.tolist()]


def wait(world: World) -> None:
    """Every rank waits for the others."""
    if world.size > 1:
        dist.barrier()
