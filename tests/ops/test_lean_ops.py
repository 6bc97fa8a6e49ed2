"""The ops behind `gan_fast.ops`: schema, autograd and fake kernels under opcheck, second order, and torch.compile.

What they are for, critics with penalties, is tested in tests/penalties/test_fast_double_backward.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops, reference_mode
from support.checks import check_op
from support.kernels import needs_kernels

pytestmark = needs_kernels


def x(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


GEOMETRY = ([2, 1], [1, 0], [1, 2], False, [0, 0], 2)
TRANSPOSED = ([2], [1], [1], True, [1], 1)
WINDOW = ([2, 3], [2, 1], [1, 1])
_Y = (2, 4, 3, 2)  # of the convolution [2, 4, 5, 6] by [4, 2, 3, 3]
INDICES = F.max_pool2d(x(2, 3, 6, 7).detach(), (2, 3), (2, 1), (1, 1), return_indices=True)[1]

SAMPLES: dict[str, list[tuple[Any, ...]]] = {
    "convolution": [
        (x(2, 4, 5, 6), x(4, 2, 3, 3), x(4), *GEOMETRY),
        (x(2, 3, 5), x(3, 4, 3), None, *TRANSPOSED),
    ],
    "convolution_input_gradient": [(x(*_Y), x(2, 4, 5, 6), x(4, 2, 3, 3), *GEOMETRY)],
    "convolution_weight_gradient": [(x(*_Y), x(2, 4, 5, 6), x(4, 2, 3, 3), *GEOMETRY)],
    "linear": [(x(5, 3), x(4, 3), x(4)), (x(2, 5, 3), x(4, 3), None)],
    "linear_input_gradient": [(x(5, 4), x(5, 3), x(4, 3))],
    "linear_weight_gradient": [(x(2, 5, 4), x(2, 5, 3), x(4, 3))],
    "leaky_relu": [(x(4, 3), 0.2), (x(7), 0.0)],
    "leaky_relu_backward": [(x(4, 3), x(4, 3, seed=1), 0.2)],
    "avg_pool": [(x(2, 3, 6, 7), *WINDOW, True, False, None)],
    "avg_pool_backward": [(x(2, 3, 4, 7), x(2, 3, 6, 7), *WINDOW, False, True, 3)],
    "max_pool": [(x(2, 3, 6, 7), *WINDOW, [1, 1], False)],
    "max_pool_backward": [(x(2, 3, 4, 7), x(2, 3, 6, 7), INDICES, *WINDOW, [1, 1], False)],
    "max_pool_tangent": [(x(2, 3, 6, 7), INDICES, *WINDOW, [1, 1], False)],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name: str) -> None:
    check_op(getattr(torch.ops.gan_fast, name).default, SAMPLES[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_every_op_is_closed_under_differentiation(name: str) -> None:
    """First and second order of each op by itself; where an argument is read for its shape, none for it."""
    for args in SAMPLES[name]:
        shape_only = {"input_gradient": 1, "weight_gradient": 2, "pool_backward": 1, "relu_backward": 1}
        constant = next((i for ending, i in shape_only.items() if name.endswith(ending)), None)
        fixed = [a.detach() if isinstance(a, Tensor) and i == constant else a for i, a in enumerate(args)]
        leaves = [a for a in fixed if isinstance(a, Tensor) and a.requires_grad]

        def function(*tensors: Tensor, fixed: list[Any] = fixed) -> Tensor:
            given = iter(tensors)
            full = [next(given) if isinstance(a, Tensor) and a.requires_grad else a for a in fixed]
            out = getattr(torch.ops.gan_fast, name).default(*full)
            return out[0] if isinstance(out, tuple) else out

        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


def critic(layers: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def score(images: Tensor, kernel: Tensor, weight: Tensor) -> Tensor:
        h = layers.leaky_relu(layers.conv2d(images, kernel, padding=1, groups=2), 0.2)
        h = layers.relu(layers.max_pool2d(layers.avg_pool2d(h, 2), 2))
        return layers.linear(h.flatten(1), weight).tanh()

    return score


def penalised(score: Callable[..., Tensor], images: Tensor, *parameters: Tensor) -> list[Tensor]:
    logits = score(images, *parameters)
    (g,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return list(torch.autograd.grad(g.square().sum() + logits.sum(), parameters))


def test_a_compiled_region_with_a_penalty_is_right() -> None:
    arguments = x(3, 4, 8, 8), x(6, 2, 3, 3), x(1, 24)
    compiled = torch.compile(lambda *a: penalised(critic(ops), *a), fullgraph=True, backend="aot_eager")
    expected = penalised(critic(F), *arguments)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        found = compiled(*arguments)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_reference_mode_and_transforms_run_torchs_own() -> None:
    """The lean ops have no forward-mode derivative: torch's functions serve it."""
    arguments = x(3, 4, 8, 8), x(6, 2, 3, 3), x(1, 24)
    with reference_mode():
        names = {type(ops.relu(x(3))).__name__, type(ops.relu(x(3)).grad_fn).__name__}
    assert "ReluBackward0" in names
    images, tangent = arguments[0], x(3, 4, 8, 8, seed=3)
    got = torch.func.jvp(lambda i: critic(ops)(i, *arguments[1:]), (images,), (tangent,))
    want = torch.func.jvp(lambda i: critic(F)(i, *arguments[1:]), (images,), (tangent,))
    torch.testing.assert_close(got, want)


def test_what_the_lean_ops_do_not_serve_is_torchs() -> None:
    """Unbatched and integer input, and torch's own messages for what nothing can serve."""
    image, kernel = x(4, 8, 8), x(6, 4, 3, 3)
    torch.testing.assert_close(ops.conv2d(image, kernel), F.conv2d(image, kernel))
    whole = torch.arange(6).view(2, 3)
    assert torch.equal(ops.relu(whole - 3), F.relu(whole - 3))
    with pytest.raises(RuntimeError, match="strided convolutions"):
        ops.conv2d(x(1, 4, 8, 8), kernel, stride=2, padding="same")
    with pytest.raises(RuntimeError, match="in-place"):
        ops.leaky_relu(x(3), 0.2, inplace=True)
