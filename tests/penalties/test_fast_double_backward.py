"""Inside `fast_double_backward()` unmodified layers give what they give outside, and do less for it.

Same value, gradient and gradient of gradient for every geometry; for R1 of k convolutions under piecewise linear
activations, 4 k convolutions: forward, image gradient, tangent, weight gradient, however many groups there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import gan_fast
from gan_fast import penalties
from penalties import layers
from penalties.comparison import COUNT
from penalties.layers import conv
from penalties.zoo import CASES, dcgan
from support.checks import check_derivatives

Layer = Callable[..., Tensor]


def derivatives(function: Layer, inputs: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """Value, gradients, and the gradients of a random function of those in the inputs and in the cotangent."""
    generator = torch.Generator().manual_seed(seed)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    y = function(*leaves)
    cotangent = random(y).requires_grad_()
    first = torch.autograd.grad(y, leaves, cotangent, create_graph=True)
    target = sum((g * random(g)).sum() for g in first)
    second = torch.autograd.grad(target, [*leaves, cotangent], allow_unused=True)
    zeros = [torch.zeros_like(x) if g is None else g for g, x in zip(second, [*leaves, cotangent], strict=True)]
    return [y, *first, *zeros]


def assert_same(function: Layer, inputs: Sequence[Tensor]) -> None:
    outside = derivatives(function, inputs)
    with penalties.fast_double_backward():
        inside = derivatives(function, inputs)
    for i, (got, want) in enumerate(zip(inside, outside, strict=True)):
        assert got.shape == want.shape and got.dtype == want.dtype
        scale = float(want.abs().max()) if want.numel() else 0.0
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11 * max(scale, 1.0), msg=lambda m, i=i: f"{i}: {m}")


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


sides = st.integers(1, 3)


@given(data=st.data(), dims=st.sampled_from([1, 2]), transposed=st.booleans(), bias=st.booleans())
def test_convolutions_of_any_geometry(data: st.DataObject, dims: int, transposed: bool, bias: bool) -> None:
    """Strides, paddings, dilations and output paddings that differ by side, groups, sizes that leave a rest."""
    draw = data.draw
    groups, n = draw(sides), draw(st.integers(1, 2))
    inside, outside = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, stride, dilation = (tuple(draw(sides) for _ in range(dims)) for _ in range(3))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(dims))
    size = tuple(
        max(draw(st.integers(1, 6)), d * (k - 1) + 1 - (0 if transposed else 2 * p)) + (p if transposed else 0)
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    x, biases = double(n, inside, *size), [double(outside, seed=2)] if bias else []
    if transposed:
        extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        w = double(inside, outside // groups, *kernel, seed=1)
        function = (F.conv_transpose1d, F.conv_transpose2d)[dims - 1]
        geometry = zip(size, stride, padding, dilation, kernel, extra, strict=True)
        made = [(i - 1) * s - 2 * p + d * (k - 1) + e + 1 for i, s, p, d, k, e in geometry]
        if min(made) < 1:
            return
        arguments = (stride, padding, extra, groups, dilation)
    else:
        w, function = double(outside, inside // groups, *kernel, seed=1), (F.conv1d, F.conv2d)[dims - 1]
        arguments = (stride, padding, dilation, groups)
    assert_same(lambda x, w, *b: function(x, w, b[0] if b else None, *arguments), [x, w, *biases])


@given(data=st.data(), dims=st.sampled_from([1, 2]), kind=st.sampled_from(["max", "average"]))
def test_pools_of_any_geometry(data: st.DataObject, dims: int, kind: str) -> None:
    draw = data.draw
    kernel = tuple(draw(sides) for _ in range(dims))
    stride = draw(st.one_of(st.none(), st.tuples(*[sides] * dims)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = tuple(draw(st.integers(1, 2)) for _ in kernel) if kind == "max" else (1,) * dims
    size = tuple(d * (k - 1) + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True))
    ceil, x = draw(st.booleans()), double(2, 3, *size)
    if kind == "max":
        function = (F.max_pool1d, F.max_pool2d)[dims - 1]
        assert_same(lambda x: function(x, kernel, stride, padding, dilation, ceil), [x])
    else:
        counted, function = draw(st.booleans()), (F.avg_pool1d, F.avg_pool2d)[dims - 1]
        assert_same(lambda x: function(x, kernel, stride, padding, ceil, counted), [x])


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4), (0, 4), (2, 1, 3, 4)])
def test_linear(shape: tuple[int, ...]) -> None:
    w, b = double(5, 4, seed=1), double(5, seed=2)
    assert_same(F.linear, [double(*shape), w, b])
    assert_same(F.linear, [double(*shape), w])
    with penalties.fast_double_backward():
        assert F.linear(double(3, 4), double(4)).shape == (3,)


@pytest.mark.parametrize("slope", [0.2, 0.0, 1.0, -0.5])
def test_activations(slope: float) -> None:
    """Exact zeros too, where aten's derivative is the negative side's."""
    x = torch.tensor([[-2.0, -0.0, 0.0, 1.5, 3.0]], dtype=torch.float64)
    assert_same(lambda x: F.leaky_relu(x, slope), [x])
    assert_same(F.relu, [x])
    assert_same(lambda x: x.relu().clamp(max=2), [x])
    assert_same(nn.Sequential(nn.LeakyReLU(0.1), nn.ReLU(), nn.ReLU6()), [x])


@pytest.mark.parametrize(
    "function",
    [F.relu_, torch.relu_, Tensor.relu_, nn.ReLU(True), nn.LeakyReLU(0.2, True), lambda x: F.leaky_relu_(x, 0.3)],
)
def test_in_place_activations_change_their_input(function: Layer) -> None:
    """The tensor itself, and whoever holds it; a leaf that requires grad is refused as outside."""

    def layer(x: Tensor) -> Tensor:
        held = 2 * x
        view = held[:, 1:]
        y = function(held)
        assert y is held
        return y * held + view.sum()

    assert_same(layer, [double(3, 4)])
    leaf = double(3).requires_grad_()
    with penalties.fast_double_backward(), pytest.raises(RuntimeError, match="leaf"):
        function(leaf)
    plain = double(3)
    with penalties.fast_double_backward():
        assert function(plain) is plain and (plain >= -1.0).all()


GRADCHECKED: dict[str, tuple[Layer, list[tuple[int, ...]]]] = {
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 2, 1, 2, 2), [(2, 4, 9), (4, 2, 3), (4,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0), (1, 2), 2), [(1, 4, 5, 5), (2, 2, 3, 2), (2,)]),
    "conv2d same": (lambda x, w: F.conv2d(x, w, padding="same"), [(1, 2, 4, 3), (2, 2, 2, 3)]),
    "conv_transpose1d": (lambda x, w: F.conv_transpose1d(x, w, None, 3, 1, 2, 2), [(2, 4, 4), (4, 1, 3)]),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, 1), [(1, 2, 3, 3), (2, 2, 3, 3)]),
    "linear": (F.linear, [(2, 3, 4), (2, 4), (2,)]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), [(3, 5)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), [(1, 2, 5, 5)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), [(1, 2, 6, 5)]),
}


@pytest.mark.parametrize("name", list(GRADCHECKED))
def test_numerical_derivatives(name: str) -> None:
    function, shapes = GRADCHECKED[name]
    inputs = [double(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    with penalties.fast_double_backward():
        check_derivatives(function, inputs)


def r1(critic: nn.Module, x: Tensor) -> Tensor:
    """E |grad|^2 / 2, as everybody's code has it."""
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.square().sum() / (2 * len(x))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.inputs and not case.augment])
def test_critics(name: str) -> None:
    """R1 by existing code, one backward with a loss, on every critic of the zoo without further inputs."""
    case, found = CASES[name], []
    for fast in (False, True):
        critic, x = case.critic(), case.images(COUNT, 0).requires_grad_()
        torch.manual_seed(1)
        with penalties.fast_double_backward() if fast else nullcontext():
            logits = critic(x)
            (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
            (gradient.square().sum() + F.softplus(-logits).sum()).backward()
        found.append({"x": x.grad, "gradient": gradient, **{k: p.grad for k, p in critic.named_parameters()}})
    scale = max(float(g.abs().max()) for g in found[0].values() if g is not None)
    for key, want in found[0].items():
        got = found[1][key]
        assert (got is None) == (want is None) or not (got if want is None else want).any(), key
        assert got is None or want is None or float((got - want).detach().abs().max()) <= 1e-10 * scale, key


def convolutions(function: Callable[[], object]) -> tuple[int, int]:
    """How many convolutions ran, and how many of them made a weight gradient."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
        function()
    events = trace.events()
    assert events is not None
    masks = [event.concrete_inputs[-1] for event in events if event.name == "aten::convolution_backward"]
    forward = sum(event.name == "aten::convolution" for event in events)
    return forward + sum(sum(mask[:2]) for mask in masks), sum(mask[1] for mask in masks)


def grouped(groups: int) -> nn.Module:
    middle = conv(8, 8, 3, 1, 1, groups=groups, bias=False), nn.LeakyReLU(0.2), nn.AvgPool2d(2)
    return nn.Sequential(conv(3, 8, 3, 1, 1), nn.ReLU(), *middle, nn.MaxPool2d(2), conv(8, 1, 2))


@pytest.mark.parametrize(
    ("critic", "count"),
    [(dcgan, 3), (lambda: grouped(1), 3), (lambda: grouped(8), 3), (layers.audio, 4)],
    ids=["dcgan", "one group", "eight groups", "audio"],
)
def test_convolutions_executed_by_r1(critic: Callable[[], nn.Module], count: int) -> None:
    """Four a layer where eager runs more: none over zeros, none a group."""
    model = critic().float()
    shape = (COUNT, 1, 64) if critic is layers.audio else (COUNT, 3, 8, 8)
    x = torch.randn(shape).requires_grad_()
    parameters = list(model.parameters())

    def step() -> None:
        torch.autograd.grad(r1(model, x), parameters, allow_unused=True)

    eager, _ = convolutions(step)
    with penalties.fast_double_backward():
        fast, weight_gradients = convolutions(step)
    assert fast <= 4 * count < eager
    assert weight_gradients <= count


def test_no_weight_gradients_where_images_are_asked_for() -> None:
    """`autograd.grad` for images runs forward and image gradient, once more each for the gradient of the gradient."""
    model, x = dcgan().float(), torch.randn(COUNT, 3, 8, 8).requires_grad_()
    with penalties.fast_double_backward():
        count, weight_gradients = convolutions(lambda: torch.autograd.grad(model(x).sum(), x, create_graph=True))
        assert (count, weight_gradients) == (6, 0)
        _, weight_gradients = convolutions(lambda: torch.autograd.grad(r1(model, x), x, allow_unused=True))
        assert weight_gradients == 0


def test_context() -> None:
    """Nests, ends with its block and on an error, and hands over to `reference_mode`."""
    critic, x = grouped(8).float(), torch.randn(COUNT, 3, 8, 8).requires_grad_()

    def count() -> int:
        return convolutions(lambda: torch.autograd.grad(r1(critic, x), list(critic.parameters()), allow_unused=True))[0]

    eager, original = count(), (F.conv2d, F.linear, F.relu, torch.conv2d, nn.Conv2d.forward, nn.Linear.forward)
    with penalties.fast_double_backward():
        fast = count()
        with penalties.fast_double_backward():
            assert count() == fast
        assert count() == fast
        with gan_fast.reference_mode():
            assert count() == eager
        assert count() == fast
    assert fast < eager == count()
    with pytest.raises(ZeroDivisionError), penalties.fast_double_backward():
        _ = 1 / 0
    assert count() == eager
    assert original == (F.conv2d, F.linear, F.relu, torch.conv2d, nn.Conv2d.forward, nn.Linear.forward)


def test_a_graph_may_be_used_outside() -> None:
    """Built inside, differentiated twice outside: the savings are in the graph."""
    critic, x = grouped(8).float(), torch.randn(COUNT, 3, 8, 8).requires_grad_()
    with penalties.fast_double_backward():
        penalty = r1(critic, x)
    count, _ = convolutions(penalty.backward)
    assert count <= 2 * 3


def test_no_graph_no_cost() -> None:
    """Without a gradient to come the layers are the plain ones, with the plain errors."""
    critic, x = dcgan().float(), torch.randn(COUNT, 3, 8, 8)
    with torch.no_grad(), penalties.fast_double_backward():
        assert not critic(x).requires_grad
        with pytest.raises(RuntimeError, match="channels"):
            critic(x[:, :2])
    with penalties.fast_double_backward(), pytest.raises(RuntimeError, match="channels"):
        critic(x[:, :2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    """The layers' rule: inputs in the lower precision, gradients of parameters in their own."""
    critic, x = grouped(2).float(), torch.randn(COUNT, 3, 8, 8).requires_grad_()
    outside = []
    for fast in (False, True):
        critic.zero_grad()
        with torch.autocast("cpu", dtype), penalties.fast_double_backward() if fast else nullcontext():
            logits = critic(x)
            assert logits.dtype == dtype
            r1(critic, x).backward()
        outside.append([p.grad for p in critic.parameters() if p.grad is not None])
    for want, got in zip(*outside, strict=True):
        assert got.dtype == torch.float32
        assert float((got - want).norm()) <= 0.05 * float(want.norm())
