"""The op behind modulated convolution, on the CPU: derivatives, shapes, layouts, its kernels, the public function."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gan_fast
from gan_fast import ops, triton
from gan_fast.reference import modulated_convolution as reference
from support.checks import check_bitwise_repeatable, check_derivatives, check_op, threads
from support.kernels import CAPABILITIES, cpu_capability, needs_kernels

if needs_kernels.args[0]:
    pytest.skip("gan_fast._C is not built here", allow_module_level=True)

from gan_fast import _C

family = torch.ops.gan_fast
op = torch.ops.gan_fast.modulated_convolution.default
LRELU = (2, 0.2, 1.3, -1.0)
LAST, FLAT = torch.channels_last, torch.contiguous_format


@pytest.fixture(autouse=True, params=["never", "always"])
def winograd(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch's convolution between two passes, and Winograd's kernels wherever they can: 3x3."""
    before = _C.winograd_mode()
    _C.set_winograd(request.param)
    yield
    _C.set_winograd(before)


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


def test_weight_gradients_that_are_switched_off_are_not_computed() -> None:
    """As `conv2d_gradfix.no_weight_gradients` does for a leaf, and not for weights made of something else."""
    inputs = tensors()
    dy = draw(*op(*inputs, 1, *LRELU).shape)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    _C.set_convolution_weight_gradients(False)
    try:
        found = torch.autograd.grad(op(*inputs, 1, *LRELU), inputs, dy, allow_unused=True)
        made = op(inputs[0], inputs[1].detach() * scale, *inputs[2:], 1, *LRELU)
        (of_scale,) = torch.autograd.grad(made, scale, dy)
    finally:
        _C.set_convolution_weight_gradients(True)
    assert [g is None for g in found] == [i == 1 for i in range(6)]
    (of_w,) = torch.autograd.grad(op(*inputs, 1, *LRELU), inputs[1], dy)
    torch.testing.assert_close(of_scale, (of_w * inputs[1]).sum())


def test_registration() -> None:
    inputs = tensors()
    dy = draw(*op(*inputs, 1, *LRELU).shape)
    x, w, s, d, noise, _ = inputs
    check_op(op, [(*inputs, 1, *LRELU), (x, w, None, None, None, None, 1, *LRELU)])
    check_op(family.modulated_convolution_input_gradient.default, [(dy, w, s, d, x, 1), (dy, w, None, d, None, 1)])
    check_op(family.modulated_convolution_weight_gradient.default, [(dy, x, s, d, 3, 1)])
    check_op(family.modulated_convolution_epilogue_gradient.default, [(dy, draw(*dy.shape), noise, *LRELU)])
    narrow = [t.detach().bfloat16().requires_grad_() if i == 0 else t.detach().float() for i, t in enumerate(inputs)]
    check_op(op, [(*narrow, 1, *LRELU)])
    check_op(family.modulated_convolution_input_gradient.default, [(dy.bfloat16(), w.detach().float(), s, d, None, 1)])


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
        ({"gain": 0.0}, "gain 0"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    given = dict(zip(("x", "w", "s", "d", "noise", "bias"), tensors(), strict=True))
    arguments: dict[str, Any] = {**given, "padding": 1, "act": 2, "alpha": 0.2, "gain": 1.0, "clamp": -1.0}
    arguments |= {name: draw(*v) if isinstance(v, tuple) else v for name, v in change.items()}
    with pytest.raises(ValueError, match=message):
        op(*arguments.values())


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("input", {"w": (3, 3, 3, 3)}, "expected"),
        ("input", {"s": (2, 2)}, "s of shape"),
        ("input", {"d": (2, 3)}, "d of shape"),
        ("input", {"x": (2, 3, 4, 4)}, "x of shape"),
        ("weight", {"dz": (2, 2, 4, 4)}, "dz of shape"),
        ("weight", {"dz": (2, 24)}, "dz of shape"),
        ("weight", {"s": (2, 2)}, "s of shape"),
        ("weight", {"d": (2, 3)}, "d of shape"),
        ("weight", {"size": 1}, "a kernel of size 1"),
        ("epilogue", {"dy": (2, 2, 4, 4)}, "dy of shape"),
        ("epilogue", {"noise": (2, 4, 3)}, "noise of shape"),
        ("epilogue", {"act": 7}, "activation number 7"),
    ],
    ids=str,
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_arguments_of_gradients_that_do_not_fit_are_refused(
    which: str, change: dict[str, Any], message: str, device: str
) -> None:
    x, w, s, d, noise, _ = (t.detach() for t in tensors())
    y = draw(2, 2, 3, 4)
    given: dict[str, dict[str, Any]] = {
        "input": {"dz": y, "w": w, "s": s, "d": d, "x": x, "padding": 1},
        "weight": {"dz": y, "x": x, "s": s, "d": d, "size": 3, "padding": 1},
        "epilogue": {"dy": y, "y": y, "noise": noise, "act": 2, "alpha": 0.2, "gain": 1.0, "clamp": -1.0},
    }
    arguments = given[which] | {name: draw(*v) if isinstance(v, tuple) else v for name, v in change.items()}
    arguments = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in arguments.items()}
    with pytest.raises(ValueError, match=message):
        getattr(family, f"modulated_convolution_{which}_gradient")(**arguments)


def test_dtypes_that_do_not_fit_are_refused() -> None:
    x, w = draw(2, 3, 4, 4), draw(2, 3, 3, 3)
    for narrow, wide in ((x.float(), w), (x.bfloat16(), w.half()), (x, w.float())):
        with pytest.raises(TypeError, match="expected w of that dtype or of float"):
            op(narrow, wide, None, None, None, None, 1, *LRELU)
    for dtype in (torch.int8, torch.bool, torch.int64, torch.complex64):
        x, w, y = (draw(*shape).to(dtype) for shape in ((2, 3, 4, 4), (2, 3, 3, 3), (2, 2, 4, 4)))
        for call in (
            lambda x, w, y: op(x, w, None, None, None, None, 1, *LRELU),
            lambda x, w, y: op(draw(2, 3, 4, 4), draw(2, 3, 3, 3), x[:, :, 0, 0], None, None, None, 1, *LRELU),
            lambda x, w, y: family.modulated_convolution_input_gradient(y, w, None, None, x, 1),
            lambda x, w, y: family.modulated_convolution_weight_gradient(y, x, None, None, 3, 1),
            lambda x, w, y: family.modulated_convolution_epilogue_gradient(y, y, None, *LRELU),
        ):
            with pytest.raises(TypeError, match="expected a float32, float64, bfloat16 or float16 tensor"):
                call(x, w, y)


def test_memory_that_is_not_allocated_is_refused() -> None:
    x, w, s = draw(2, 3, 4, 4), draw(2, 3, 3, 3), draw(2, 3)
    for t in (x, w, s):
        size = t.untyped_storage().nbytes()
        t.untyped_storage().resize_(0)  # as FSDP does with parameters between uses
        with pytest.raises(RuntimeError, match="not allocated"):
            op(x, w, s, None, None, None, 1, *LRELU)
        t.untyped_storage().resize_(size)


@pytest.mark.parametrize("order", [FLAT, LAST], ids=["contiguous", "channels_last"])
def test_gradients_of_what_is_not_finite(order: torch.memory_format) -> None:
    """No gradient passes the clamp, also not that of an infinity or NaN; elsewhere they are seen."""
    y = (
        torch.tensor([3.0, float("nan"), 1.0, -1.0])
        .view(1, 1, 2, 2)
        .expand(1, 20, 2, 2)
        .contiguous(memory_format=order)
    )
    dy = torch.full_like(y, float("inf"))
    dz, sums, _ = family.modulated_convolution_epilogue_gradient(dy, y, None, 2, 0.2, 1.0, 2.0)
    assert dz[0, 0].flatten().tolist() == [0.0, 0.0, float("inf"), float("inf")] and bool((sums == float("inf")).all())
    exact = reference.epilogue_gradient(dy, y, None, 2, 0.2, 1.0, 2.0)
    assert torch.equal(dz, exact[0]) and torch.equal(sums, exact[1])


# ---- Winograd's kernels

# N, in, out, H, W, padding: channels that fill panels and vectors and that do not, odd sides, rows of over 48 tiles
SHAPES = [(2, 3, 5, 7, 9, 1), (2, 40, 33, 6, 5, 0), (3, 17, 70, 4, 10, 2), (1, 128, 64, 9, 8, 1), (2, 9, 34, 4, 131, 1)]


def everything(x: Tensor, w: Tensor, s: Tensor, d: Tensor, noise: Tensor, bias: Tensor, dz: Tensor, **more: Any):
    """All results of the four ops: y, dx, ds, dw, and dz, its sums and its products through the epilogue."""
    padding, act = more["padding"], more.get("act", (2, 0.2, 1.3, 40.0))
    y = op(x, w, s, d, noise, bias, padding, *act)
    return [
        y,
        *family.modulated_convolution_input_gradient(dz, w, s, d, x, padding),
        family.modulated_convolution_weight_gradient(dz, x, s, d, 3, padding),
        *family.modulated_convolution_epilogue_gradient(dz, more.get("of", y), noise, *act),
    ]


def exactly(x: Tensor, w: Tensor, s: Tensor, d: Tensor, noise: Tensor, bias: Tensor, dz: Tensor, **more: Any):
    """The same of the reference in float64; the clamp is rounded as y is, whose values are given."""
    padding, (act, alpha, gain, clamp) = more["padding"], more.get("act", (2, 0.2, 1.3, 40.0))
    rounded = float(torch.tensor(clamp, dtype=more["of"].dtype))
    x, w, s, d, noise, bias, dz = (t.double() for t in (x, w, s, d, noise, bias, dz))
    return [
        reference.modulated_convolution(x, w, s, d, noise, bias, padding, act, alpha, gain, clamp),
        *reference.input_gradient(dz, w, s, d, x, padding),
        reference.weight_gradient(dz, x, s, d, 3, padding),
        *reference.epilogue_gradient(dz, more["of"].double(), noise, act, alpha, gain, rounded),
    ]


def case(shape: tuple[int, ...], dtype: torch.dtype, order: torch.memory_format) -> tuple[list[Tensor], int]:
    """Images in dtype and order, parameters in at least float32."""
    n, i, o, h, w, padding = shape
    wide = torch.promote_types(dtype, torch.float32)
    pixels = h + 2 * padding - 2, w + 2 * padding - 2
    shapes = ((n, i, h, w), (o, i, 3, 3), (n, i), (n, o), (n, 1, *pixels), (o,), (n, o, *pixels))
    found = [draw(*s, seed=k).to(dtype if k in (0, 6) else wide) for k, s in enumerate(shapes)]
    found[3] = found[3].abs() + 0.5
    for k in (0, 6):
        found[k] = found[k].contiguous(memory_format=order)
    return found, padding


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_kernels(capability: str, dtype: torch.dtype) -> None:
    """Against the float64 reference: bounds of the largest entry; in the image's memory order."""
    bound = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 3e-2}[dtype]
    names = ["y", "dx", "ds", "dw", "dz", "sums", "products"]
    with cpu_capability(capability):
        for shape, order in itertools.product(SHAPES, (LAST, FLAT)):
            given, padding = case(shape, dtype, order)
            found = everything(*given, padding=padding)
            for name, got, exact in zip(names, found, exactly(*given, padding=padding, of=found[0]), strict=True):
                error = float((got.double() - exact).abs().max() / exact.abs().max())
                assert error < bound, (name, shape, order, error)
                assert got.dtype == (dtype if name in ("y", "dx", "dw", "dz") else given[2].dtype)
                if name in ("y", "dx", "dz"):
                    assert got.is_contiguous(memory_format=order), name


def test_images_in_groups() -> None:
    """Contiguous images are copied as many at a time as fit 8 MB: here two, two and one."""
    given, padding = case((5, 48, 32, 100, 120, 1), torch.float32, FLAT)
    found = everything(*given, padding=padding)
    for got, exact in zip(found, exactly(*given, padding=padding, of=found[0]), strict=True):
        for a, b in zip(got, exact, strict=True):
            assert float((a.double() - b).abs().max()) < 1e-5 * float(exact.abs().max())


@pytest.mark.parametrize("order", [FLAT, LAST], ids=["contiguous", "channels_last"])
def test_rounding_in_bfloat16(order: torch.memory_format) -> None:
    """Root mean square errors of y, dx, ds, dw over the results' own, of 128 channels.

    Measured: 4.34e-3, 4.29e-3, 4.42e-3, 4.35e-3 by Winograd's kernels; with weights rounded before their transform
    4.56e-3 for y; with images scaled and rounded before 4.67e-3 for y and 4.71e-3 for dw. torch's convolution between
    two passes has 3.31e-3, 3.28e-3, 3.04e-3, 2.87e-3.
    """
    given, padding = case((2, 128, 128, 16, 16, 1), torch.bfloat16, order)
    found = everything(*given, padding=padding, act=(0, 0.0, 1.0, -1.0))
    exact = exactly(*given, padding=padding, act=(0, 0.0, 1.0, -1.0), of=found[0])
    for got, truth, bound in zip(found[:4], exact[:4], (4.5e-3, 4.4e-3, 4.8e-3, 4.5e-3), strict=True):
        error = float((got.double() - truth).square().mean().sqrt() / truth.square().mean().sqrt())
        assert error < bound, error


@pytest.mark.parametrize("winograd", ["always"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", [FLAT, LAST], ids=["contiguous", "channels_last"])
def test_the_same_bits_on_any_number_of_threads(order: torch.memory_format, dtype: torch.dtype) -> None:
    given, padding = case((5, 70, 40, 20, 20, 1), dtype, order)
    check_bitwise_repeatable(lambda: everything(*given, padding=padding))


def test_views_and_negations() -> None:
    """Parameters that do not lie as they are read: steps, repeats, and torch's lazy minus."""
    given, padding = case((2, 40, 33, 8, 7, 1), torch.float32, LAST)
    _, _, s, d, noise, bias, _ = given
    given[2] = torch._neg_view(torch.stack([-s, s], 2)[..., 0])
    given[3] = torch.stack([d, d], 2)[..., 1]
    given[4] = noise[:1]
    given[5] = bias[:1].expand(33)
    found = everything(*given, padding=padding)
    for got, exact in zip(found, exactly(*given, padding=padding, of=found[0]), strict=True):
        assert float((got.double() - exact).abs().max()) < 1e-5 * float(exact.abs().max())


def test_which_layers_are_one_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto: bfloat16 where the processor sums pairs of it, channels and tiles enough, most of a tile in the image."""
    module = sys.modules["gan_fast.ops.modulated_conv2d"]

    def ask(x: Tensor, out: int, size: int = 3, padding: Any = 1, act: str = "lrelu", gain: float = 1.0) -> bool:
        return module._is_one_op(x, torch.empty(out, x.shape[1], size, size), padding, act, 0.2, gain)

    image = torch.empty(4, 64, 16, 16, dtype=torch.bfloat16).contiguous(memory_format=LAST)
    if _C.winograd_mode() == "always":
        assert ask(image, 1) and ask(image.double(), 1) and ask(image, 1, padding=2)
        assert not any((ask(image, 1, size=1), ask(image, 1, act="swish"), ask(image, 1, gain=0.0)))
        assert not any((ask(image, 1, padding=[1, 1]), ask(image.half(), 1), ask(image[:0], 1)))
        return
    assert not ask(image, 64)
    _C.set_winograd("auto")
    with cpu_capability("avx2"):
        assert _C.winograd_layer_limits(True, True) is None
    assert _C.winograd_layer_limits(False, True) is None
    with threads(2):
        monkeypatch.setattr(_C, "winograd_layer_limits", lambda narrow, last: (64 if last else 128, 256, 3))
        assert ask(image, 64) and not ask(image, 63) and not ask(image[:, :63], 64)
        assert not ask(image.contiguous(), 64) and not ask(image[:3], 64)
        assert not ask(image[:, :, :5, :5].expand(-1, -1, -1, -1), 64)


def winograd_products(call: Any) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        call()
    return sum(event.name == "gan_fast::winograd" for event in seen.events() or ())


@pytest.mark.parametrize("winograd", ["auto"], indirect=True)
def test_the_kernels_run_where_this_processor_has_them() -> None:
    """All three products of a layer, or none, at the borders of the rule."""
    if _C.winograd_layer_limits(True, True) is None:
        pytest.skip("this processor has no AVX512_BF16, or has AMX")
    # batch, channels, side, padding, order
    cases = {(4, 64, 16, 1, LAST): 3, (4, 63, 16, 1, LAST): 0, (4, 64, 14, 1, LAST): 0, (4, 64, 14, 2, LAST): 0}
    cases |= {(4, 128, 16, 1, FLAT): 3, (4, 127, 16, 1, FLAT): 0, (5, 64, 16, 0, LAST): 0, (16, 64, 9, 0, LAST): 3}
    cases |= {(29, 64, 7, 0, LAST): 0}
    with threads(2):
        for (n, c, side, padding, order), products in cases.items():
            x = draw(n, c, side, side).bfloat16().contiguous(memory_format=order).requires_grad_()
            w, s = draw(c, c, 3, 3).float().requires_grad_(), draw(n, c).float().requires_grad_()

            def layer(x: Tensor = x, w: Tensor = w, s: Tensor = s, padding: int = padding) -> None:
                for demodulate in (True, False):
                    y = ops.modulated_conv2d(x, w, s, padding=padding, demodulate=demodulate)
                    y.sum().backward()  # whose gradient is one number, in no memory order

            assert winograd_products(layer) == 2 * products, (n, c, side, padding, order)


# ---- The public function, led through the op


@pytest.fixture
def led_through_the_op(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`modulated_conv2d` calls the op for CPU tensors too; returns what was asked."""
    asked: list[str] = []

    def serves(x: Tensor, weight: Tensor, padding: Any, act: str, alpha: float, gain: float) -> bool:
        asked.append(act)
        return act in triton.FUSED

    monkeypatch.setattr(sys.modules["gan_fast.ops.modulated_conv2d"], "_is_one_op", serves)
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


@pytest.mark.parametrize("winograd", ["auto"], indirect=True)
def test_sizes_that_a_tracer_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of unknown size compiles, and a free one exports: both compose."""
    module = sys.modules["gan_fast.ops.modulated_conv2d"]
    limits = lambda narrow, last: (2, 8, 3)  # noqa: E731
    limits._dynamo_marked_constant = True  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "_cpu_limits", limits)
    w = draw(3, 3, 3, 3)

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, s: Tensor, noise: Tensor) -> Tensor:
            return ops.modulated_conv2d(x, w, s, noise, padding=1, act="lrelu")

    layer = Layer()

    def chosen(x: Tensor, s: Tensor, noise: Tensor, which: Tensor) -> Tensor:
        rows = which.nonzero().squeeze(1)
        return layer(x[rows], s[rows], noise)

    x, s, noise = draw(4, 3, 6, 6), draw(4, 3), draw(1, 1, 6, 6)
    which = torch.tensor([True, False, True, True])
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(chosen, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, s, noise, which), chosen(x, s, noise, which))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(layer, (x, s, noise), dynamic_shapes=({0: batch}, {0: batch}, None))
    torch.testing.assert_close(program.module()(x[:1], s[:1], noise), layer(x[:1], s[:1], noise))


def test_other_activations_and_resampling_do_not_reach_the_op(led_through_the_op: list[str]) -> None:
    x, w, s = (t.detach() for t in tensors(i=3, o=4)[:3])
    ops.modulated_conv2d(x, w, s, up=2, padding=1)
    assert led_through_the_op == []
    ops.modulated_conv2d(x, w, s, padding=1, act="tanh")
    assert led_through_the_op == ["tanh"]


def test_triton_is_not_for_cpu_tensors() -> None:
    x, w = torch.zeros(1, 2, 4, 4), torch.zeros(2, 2, 3, 3)
    assert not triton.serves(x, w, 1, "lrelu", 0.2, 1.0)
    assert list(inspect.signature(triton.serves).parameters) == ["x", "weight", "padding", "act", "alpha", "gain"]


def test_half_precision_rounds_once_each_way() -> None:
    """In bfloat16 as close to the truth as two roundings allow, gradients of scales in float32."""
    inputs = [t.detach() for t in tensors(n=2, i=8, o=6, h=7, w=5)]
    narrow = [t.to(torch.bfloat16 if i in (0, 1) else torch.float32).requires_grad_() for i, t in enumerate(inputs)]
    wide = [t.detach().double().requires_grad_() for t in narrow]
    act = (0, 0.0, 1.3, -1.0)  # a pre-activation near the kink of another may have another sign
    y, exact = op(*narrow, 1, *act), op(*wide, 1, *act)
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
