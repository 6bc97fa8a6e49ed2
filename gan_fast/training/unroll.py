"""The critic as it will be k of its own steps from now, as a function of the images it is shown:

    phi_0 = phi,    phi_{i+1} = phi_i - U_i(d L_D(phi_i; x, G(z)) / d phi_i),    i < k
    the generator minimises  L_G(phi_k; G(z))  with the gradient through every phi_i

U is the update of the critic's own optimiser (Adam, RMSprop or SGD) from its present moments, written out below so
that it can be differentiated. This is the exact gradient, not the surrogate that takes phi_k as a constant: k steps
cost k critic graphs in memory and a backward through all of them. Parameters and buffers of the unrolled critic are
copies (`torch.func.functional_call`), so the critic itself, its running statistics and its optimiser are never touched.

All k steps see the images of the generator's step. Source: Metz, Poole, Pfau and Sohl-Dickstein, "Unrolled Generative
Adversarial Networks", ICLR 2017, equations 7 to 11.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gan_fast.training.distributed import World, mean_with_gradient

Score = Callable[..., Any]


def unrolled(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    loss: Callable[[Score], Tensor],
    world: World,
    clip: float = 0.0,
) -> Score:
    """The critic after `steps` more updates by `optimizer`, to be called as the critic is.

    Args:
        loss: what the critic minimises, 0-dim, of the critic it is given. Images in it may hang on a generator: the
            returned critic's weights then do too.
        world: gradients of the steps are averaged over its ranks, there and back.
        clip: bound of the weights after each step; 0 for none.

    Raises ValueError for an optimiser that cannot be unrolled.
    """
    step = _UPDATES.get(type(optimizer))
    if step is None:
        known = ", ".join(kind.__name__ for kind in _UPDATES)
        raise ValueError(f"unrolled steps know {known}, and the critic's optimiser is {type(optimizer).__name__}")
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    names = [name for name, p in critic.named_parameters() if id(p) in groups]
    owners = dict(critic.named_parameters())
    current = {name: owners[name].detach().requires_grad_() for name in names}
    fixed = {name: p.detach() for name, p in owners.items() if name not in current}
    fixed |= {name: buffer.clone() for name, buffer in critic.named_buffers()}
    moments = {name: dict(optimizer.state.get(owners[name], {})) for name in names}
    with torch.enable_grad():
        for _ in range(steps):
            score = functools.partial(_call, critic, {**current, **fixed})
            found = torch.autograd.grad(loss(score), list(current.values()), create_graph=True, allow_unused=True)
            gradients = dict(zip(names, found, strict=True))
            shared = mean_with_gradient([g for g in found if g is not None], world)
            for name, gradient in zip([n for n in names if gradients[n] is not None], shared, strict=True):
                moved, moments[name] = step(current[name], gradient, moments[name], groups[id(owners[name])])
                current[name] = moved.clamp(-clip, clip) if clip else moved
    return functools.partial(_call, critic, {**current, **fixed})


def _call(critic: nn.Module, tensors: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    return functional_call(critic, dict(tensors), args, kwargs)


def _refuse(optimizer: str, group: Mapping[str, Any], *settings: str) -> None:
    for setting in settings:
        if group.get(setting):
            raise ValueError(f"unrolled steps know {optimizer} without {setting}, got {setting}={group[setting]!r}")


def _root(x: Tensor) -> Tensor:
    """sqrt(x), x >= 0, with the derivative 0 where x is 0: a weight that never had a gradient does not move."""
    positive = x > 0
    return torch.where(positive, x, torch.ones_like(x)).sqrt() * positive


Moments = dict[str, Any]


def _adam(p: Tensor, g: Tensor, m: Moments, group: Mapping[str, Any]) -> tuple[Tensor, Moments]:
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)."""
    _refuse("Adam", group, "weight_decay", "amsgrad", "maximize")
    beta1, beta2 = group["betas"]
    t = torch.as_tensor(m.get("step", 0.0), dtype=torch.float64, device=p.device) + 1
    first = beta1 * m.get("exp_avg", torch.zeros_like(p)) + (1 - beta1) * g
    second = beta2 * m.get("exp_avg_sq", torch.zeros_like(p)) + (1 - beta2) * g.square()
    bias1, bias2 = (1 - beta1**t).to(p.dtype), (1 - beta2**t).sqrt().to(p.dtype)
    moved = p - (group["lr"] / bias1) * first / (_root(second) / bias2 + group["eps"])
    return moved, {"step": t, "exp_avg": first, "exp_avg_sq": second}


def _rmsprop(p: Tensor, g: Tensor, m: Moments, group: Mapping[str, Any]) -> tuple[Tensor, Moments]:
    """v = a v + (1 - a) g^2;  p - lr g / (sqrt(v) + eps)."""
    _refuse("RMSprop", group, "weight_decay", "momentum", "centered", "maximize")
    square = group["alpha"] * m.get("square_avg", torch.zeros_like(p)) + (1 - group["alpha"]) * g.square()
    return p - group["lr"] * g / (_root(square) + group["eps"]), {"square_avg": square}


def _sgd(p: Tensor, g: Tensor, m: Moments, group: Mapping[str, Any]) -> tuple[Tensor, Moments]:
    """p - lr g."""
    _refuse("SGD", group, "weight_decay", "momentum", "nesterov", "maximize")
    return p - group["lr"] * g, {}


_UPDATES: dict[type, Callable[..., tuple[Tensor, Moments]]] = {
    torch.optim.Adam: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.SGD: _sgd,
}
