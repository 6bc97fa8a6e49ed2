r"""Critics whose image gradient is known in closed form, and what a penalty on it then is, in NumPy's float64.

With g_i the gradient of sample i and P = mean_i p(|g_i|), P's derivative for g_i is u_i = p'(|g_i|) g_i / (N |g_i|),
zero where g_i is. A critic carries u_i on to its parameters and images: d P = sum_i <u_i, d g_i>.

    Linear       o = <w, x> + b                  g = w
    Quadratic    o = x^T A x / 2 + b^T x         g = S x + b,  S = (A + A^T) / 2
    Hidden       o = v^T softplus(W x + b)       g = W^T (v s),  s = sigmoid(W x + b)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray


@dataclass(frozen=True)
class Penalty:
    """p(r) and p'(r) of the norm r."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def square(weight: float) -> Penalty:
    return Penalty(lambda r: weight / 2 * r**2, lambda r: weight * r)


def two_sided(weight: float, center: float) -> Penalty:
    return Penalty(lambda r: weight * (r - center) ** 2, lambda r: 2 * weight * (r - center))


def one_sided(weight: float, center: float) -> Penalty:
    return Penalty(lambda r: weight * np.maximum(r - center, 0) ** 2, lambda r: 2 * weight * np.maximum(r - center, 0))


class ClosedForm(nn.Module):
    """A critic on flattened images, float64 unless moved."""

    def __init__(self, **arrays: Array) -> None:
        super().__init__()
        for name, array in arrays.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(array)))

    def array(self, name: str) -> Array:
        return self.get_parameter(name).detach().double().numpy()

    def image_gradient(self, x: Array) -> Array:
        raise NotImplementedError

    def pull_back(self, x: Array, u: Array) -> tuple[dict[str, Array], Array]:
        """sum_i <u_i, d g_i> by parameter and by image."""
        raise NotImplementedError


class Linear(ClosedForm):
    def __init__(self, size: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        super().__init__(w=random.standard_normal(size), b=random.standard_normal(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w + self.b

    def image_gradient(self, x: Array) -> Array:
        return np.broadcast_to(self.array("w"), x.shape)

    def pull_back(self, x: Array, u: Array) -> tuple[dict[str, Array], Array]:
        return {"w": u.sum(0), "b": np.zeros(1)}, np.zeros_like(x)


class Quadratic(ClosedForm):
    def __init__(self, size: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        super().__init__(a=random.standard_normal((size, size)) / 5, b=random.standard_normal(size))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return (x @ self.a * x).sum(1, keepdim=True) / 2 + (x @ self.b)[:, None]

    def image_gradient(self, x: Array) -> Array:
        a = self.array("a")
        return x @ (a + a.T) / 2 + self.array("b")

    def pull_back(self, x: Array, u: Array) -> tuple[dict[str, Array], Array]:
        a, m = self.array("a"), u.T @ x
        return {"a": (m + m.T) / 2, "b": u.sum(0)}, u @ (a + a.T) / 2


class Hidden(ClosedForm):
    def __init__(self, size: int, units: int = 6, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        super().__init__(
            w=random.standard_normal((units, size)) / 3,
            b=random.standard_normal(units),
            v=random.standard_normal(units),
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x.flatten(1) @ self.w.T + self.b) @ self.v

    def image_gradient(self, x: Array) -> Array:
        w, b, v = (self.array(name) for name in "wbv")
        return (v / (1 + np.exp(-(x @ w.T + b)))) @ w

    def pull_back(self, x: Array, u: Array) -> tuple[dict[str, Array], Array]:
        w, b, v = (self.array(name) for name in "wbv")
        s = 1 / (1 + np.exp(-(x @ w.T + b)))
        along = u @ w.T
        bend = v * s * (1 - s) * along
        return {"w": (v * s).T @ u + bend.T @ x, "b": bend.sum(0), "v": (s * along).sum(0)}, bend @ w


CRITICS: dict[str, Callable[[int], ClosedForm]] = {"linear": Linear, "quadratic": Quadratic, "hidden": Hidden}


def truth(critic: ClosedForm, images: Tensor, penalty: Penalty) -> tuple[float, dict[str, Array], Array]:
    """The penalty at the images, its gradient by parameter and by image."""
    x = images.detach().double().flatten(1).numpy()
    g = critic.image_gradient(x)
    norms = np.sqrt((g**2).sum(1, keepdims=True))
    u = np.where(norms > 0, penalty.slope(norms) / np.where(norms > 0, norms, 1), 0) * g / len(x)
    parameters, by_image = critic.pull_back(x, u)
    return float(penalty.value(norms).mean()), parameters, by_image.reshape(images.shape)
