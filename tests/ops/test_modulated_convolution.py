"""The op behind modulated convolution on CUDA, tried on the CPU: derivatives, shapes, layouts, the public function."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gan_fast
from gan_fast import ops, triton
from gan_fast.reference import modulated_convolution as reference
from support.checks import check_derivatives, check_op

op = torch.ops.gan_fast.modulated_convolution.default
LRELU = (2, 0.2, 1.3, -1.0)


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def tensors(n: int = 2, i: int = 3, o: int = 2, h: int = 3, w: int = 4, k: int = 3, padding: int = 1) -> list[Tensor]:
    """x, w, s, d, noise, bias in float64, requiring grad."""
    pixels = h + 2 * padding - k + 1, w + 2 * padding - k + 1
    shapes = ((n, i, h, w), (o, i, k, k), (n, i), (n, o), (n, 1, *pixels), (o,))
    found = [draw(*shape, seed=index) for index, shape in enumerate(shapes)]
    found[3] = found[3].abs() + 0.5
    return [t.requires_grad_() for t in found]


def formula(x: Tensor, w: Tensor, s: Tensor, d: Tensor, noise: Tensor, bias: Tensor, padding: int, act: Any) -> Tensor:
    """Sample by sample, with weights of its own each."""
    _, alpha, gain, clamp = act
    samples = []
    for n in range(len(x)):
        own = d[n, :, None, None, None] * w * s[n, None, :, None, None]
        z = F.conv2d(x[n : n + 1], own, padding=padding) + noise[n % len(noise)] + bias[:, None, None]
        y = F.leaky_relu(z, alpha if act[0] == 2 else 1.0 if act[0] == 0 else 0.0) * gain
        samples.append(y.clamp(-clamp, clamp) if clamp >= 0 else y)
    return torch.cat(samples)


@pytest.mark.parametrize(("k", "padding"), [(3, 1), (1, 0), (3, 2), (3, 0)])
@pytest.mark.parametrize("act", [LRELU, (0, 0.0, 1.0, -1.0), (1, 0.0, 1.2, 1.5)], ids=["lrelu", "linear", "relu"])
def test_value_and_gradients_are_those_of_per_sample_weights(k: int, padding: int, act: Any) -> None:
    inputs = tensors(k=k, padding=padding)
    y, expected = op(*inputs, padding, *act), formula(*inputs, padding, act)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    dy = draw(*y.shape, seed=9)
    found, truth = torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, inputs, dy)
    for got, exact in zip(found, truth, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("act", [LRELU, (0, 0.0, 1.0, -1.0), (1, 0.0, 1.2, 1.5)], ids=["lrelu", "linear", "relu"])
def test_first_and_second_derivatives_of_everything(act: Any) -> None:
    check_derivatives(lambda *t: op(*t, 1, *act), tensors(h=2, w=3))


@pytest.mark.parametrize("missing", [(2,), (3,), (2, 3), (4,), (5,), (2, 3, 4, 5)], ids=str)
def test_second_derivatives_where_arguments_are_missing(missing: tuple[int, ...]) -> None:
    """An argument that is None shifts the numbers autograd knows the others by."""
    inputs = tensors(n=1, i=2, h=2, w=2)
    given = [t for i, t in enumerate(inputs) if i not in missing]

    def call(*rest: Tensor) -> Tensor:
        left = iter(rest)
        return op(*(None if i in missing else next(left) for i in range(6)), 1, *LRELU)

    check_derivatives(call, given)


def test_third_derivatives() -> None:
    inputs = tensors(n=1, i=2, o=1, h=2, w=2)

    def penalty(*t: Tensor) -> Tensor:
        gradients = torch.autograd.grad(op(*t, 1, *LRELU).square().sum(), t, create_graph=True)
        return sum(g.square().sum() for g in gradients)  # type: ignore[return-value]

    check_derivatives(penalty, inputs)


def test_only_what_is_asked_for_is_computed() -> None:
    inputs = tensors()
    y = op(*inputs, 1, *LRELU)
    names: list[str] = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(func.name())
            return func(*args, **(kwargs or {}))

    with Record():
        torch.autograd.grad(y, inputs[1], draw(*y.shape))
    ours = [name.removeprefix("gan_fast::modulated_convolution_") for name in names if name.startswith("gan_fast")]
    assert ours == ["epilogue_gradient", "weight_gradient"]


def test_registration() -> None:
    inputs = tensors()
    dy = draw(*op(*inputs, 1, *LRELU).shape)
    x, w, s, d, noise, _ = inputs
    family = torch.ops.gan_fast
    check_op(op, [(*inputs, 1, *LRELU), (x, w, None, None, None, None, 1, *LRELU)])
    check_op(family.modulated_convolution_input_gradient.default, [(dy, w, s, d, x, 1), (dy, w, None, d, None, 1)])
    check_op(family.modulated_convolution_weight_gradient.default, [(dy, x, s, d, 3, 1)])
    check_op(family.modulated_convolution_epilogue_gradient.default, [(dy, draw(*dy.shape), noise, *LRELU)])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (0, 3, 5, 4), (2, 1, 5, 4), (2, 3, 1, 1), (1, 1, 1, 1)], ids=str)
def test_results_have_the_memory_order_of_the_image(shape: tuple[int, ...], order: torch.memory_format) -> None:
    x = draw(*shape).to(memory_format=order)
    assert reference.memory_order(x) == torch._prims_common.suggest_memory_format(x)
    w = draw(4, shape[1], 3, 3)
    y = op(x, w, None, None, None, None, 1, *LRELU)
    assert y.shape == (shape[0], 4, *shape[2:])
    assert y.is_contiguous(memory_format=reference.memory_order(x))
    dx, _ = torch.ops.gan_fast.modulated_convolution_input_gradient(y, w, None, None, None, 1)
    assert dx.shape == x.shape and dx.is_contiguous(memory_format=reference.memory_order(y))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": (2, 4, 3, 3)}, "expected"),
        ({"w": (2, 3, 3, 1)}, "expected"),
        ({"s": (2, 2)}, "s of shape"),
        ({"d": (1, 2)}, "d of shape"),
        ({"noise": (2, 1, 3, 3)}, "noise of shape"),
        ({"bias": (3,)}, "bias of shape"),
        ({"padding": 3}, "padding 3"),
        ({"act": 3}, "activation number 3"),
        ({"gain": 0.0}, "gain 0.0"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    given = dict(zip(("x", "w", "s", "d", "noise", "bias"), tensors(), strict=True))
    arguments: dict[str, Any] = {**given, "padding": 1, "act": 2, "alpha": 0.2, "gain": 1.0, "clamp": -1.0}
    arguments |= {name: draw(*v) if isinstance(v, tuple) else v for name, v in change.items()}
    with pytest.raises(ValueError, match=message):
        op(*arguments.values())


# ---- The public function, led through the op


@pytest.fixture
def led_through_the_op(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`modulated_conv2d` calls the op for CPU tensors too; returns what was asked."""
    asked: list[str] = []

    def serves(x: Tensor, weight: Tensor, padding: Any, act: str, alpha: float, gain: float) -> bool:
        asked.append(act)
        return act in triton.FUSED

    monkeypatch.setattr(triton, "serves", serves)
    return asked


def layer(demodulate: bool = True, **more: Any) -> tuple[list[Tensor], Any]:
    x, w, s, _, noise, bias = tensors(n=2, i=3, o=4, h=5, w=4)

    def call(x: Tensor, w: Tensor, s: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        return ops.modulated_conv2d(
            x, w, s, noise, padding=1, demodulate=demodulate, bias=bias, act="lrelu", clamp=2.0, **more
        )

    return [x, w, s, noise, bias], call


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("flip_weight", [True, False])
def test_public_function_is_the_same_through_the_op(
    led_through_the_op: list[str], demodulate: bool, flip_weight: bool
) -> None:
    inputs, call = layer(demodulate, flip_weight=flip_weight, input_gain=torch.tensor(0.7, dtype=torch.float64))

    def everything() -> list[Tensor]:
        y = call(*inputs)
        first = torch.autograd.grad(y, inputs, draw(*y.shape, seed=5), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs, allow_unused=True)
        return [y, *first, *(torch.zeros_like(t) if g is None else g for g, t in zip(second, inputs, strict=True))]

    found = everything()
    assert led_through_the_op
    with gan_fast.reference_mode():
        truth = everything()
    for got, exact in zip(found, truth, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)


def test_stylegan3_form_is_the_same_through_the_op(led_through_the_op: list[str]) -> None:
    x, w, s = (t.detach() for t in tensors(i=3, o=4)[:3])
    found = ops.modulated_conv2d_v3(x, w, s, padding=2)
    with gan_fast.reference_mode():
        truth = ops.modulated_conv2d_v3(x, w, s, padding=2)
    assert led_through_the_op == ["linear"]
    torch.testing.assert_close(found, truth)


def test_compiles_whole_with_its_gradients(led_through_the_op: list[str]) -> None:
    inputs, call = layer()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (2, 3):
        t = [draw(n, *v.shape[1:]) if v.shape[0] == 2 else v.detach() for v in inputs]
        t = [v.requires_grad_() for v in t]
        y, expected = compiled(*t), call(*t)
        torch.testing.assert_close(y, expected)
        dy = draw(*y.shape)
        torch.testing.assert_close(torch.autograd.grad(y, t, dy), torch.autograd.grad(expected, t, dy))


def test_other_activations_and_resampling_do_not_reach_the_op(led_through_the_op: list[str]) -> None:
    x, w, s = (t.detach() for t in tensors(i=3, o=4)[:3])
    ops.modulated_conv2d(x, w, s, up=2, padding=1)
    assert led_through_the_op == []
    ops.modulated_conv2d(x, w, s, padding=1, act="tanh")
    assert led_through_the_op == ["tanh"]


def test_cpu_tensors_are_composed() -> None:
    x, w = torch.zeros(1, 2, 4, 4), torch.zeros(2, 2, 3, 3)
    assert not triton.serves(x, w, 1, "lrelu", 0.2, 1.0)
    assert list(inspect.signature(triton.serves).parameters) == ["x", "weight", "padding", "act", "alpha", "gain"]


def test_half_precision_rounds_once_each_way() -> None:
    """In bfloat16 as close to the truth as two roundings allow, gradients of scales in float32."""
    inputs = [t.detach() for t in tensors(n=2, i=8, o=6, h=7, w=5)]
    narrow = [t.to(torch.bfloat16 if i in (0, 1) else torch.float32).requires_grad_() for i, t in enumerate(inputs)]
    wide = [t.detach().double().requires_grad_() for t in narrow]
    y, exact = op(*narrow, 1, *LRELU), op(*wide, 1, *LRELU)
    assert y.dtype == torch.bfloat16
    dy = draw(*y.shape).bfloat16()
    for t, got, truth in zip(
        narrow, torch.autograd.grad(y, narrow, dy), torch.autograd.grad(exact, wide, dy.double()), strict=True
    ):
        assert got.dtype == t.dtype
        assert float((got.double() - truth).abs().max()) <= 2**-6 * float(truth.abs().max())


def test_autocast_narrows_image_and_weights() -> None:
    x, w, s, d, noise, bias = (t.detach().float() for t in tensors())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = op(x, w, s, d, noise, bias, 1, *LRELU)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), op(x, w, s, d, noise, bias, 1, *LRELU), rtol=0.05, atol=0.05)
