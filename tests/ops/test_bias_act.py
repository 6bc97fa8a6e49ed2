"""`ops.bias_act`: y = clamp(gain act(x scale + noise + b)), every kernel against the reference, to third order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gan_fast
from gan_fast import ops
from gan_fast.reference import bias_act as reference
from gan_fast.reference.bias_act import ACTIVATIONS
from support import strategies
from support.checks import check_bitwise_repeatable, check_derivatives, check_op
from support.kernels import CAPABILITIES, cpu_capability, needs_kernels
from support.reference_runner import agree, derivatives, poisoned_memory
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import DTYPES, assert_bitwise_equal, assert_close

pytestmark = needs_kernels
OPS = ("bias_act", "bias_act_backward", "bias_act_backward_", "bias_act_double_backward")
PIECEWISE = ("linear", "relu", "lrelu")
SHAPE = (3, 5, 4, 6)


def inputs_of(shape: tuple[int, ...], dtype: torch.dtype, *, seed: int = 1, noise: str = "batched") -> list[Tensor]:
    """x, b, scale and noise for dim 1."""
    n, c, *spatial = shape
    noise_shape = {"batched": (n, 1, *spatial), "one": (1, 1, *spatial), "spatial": tuple(spatial)}[noise]
    shapes = (shape, (c,), (n, c), noise_shape)
    return [draw_values(s, "normal", seed + i, dtype) / 2 for i, s in enumerate(shapes)]


def function(act: str, **options) -> Callable[..., Tensor]:
    return lambda x, b=None, scale=None, noise=None: ops.bias_act(x, b, act=act, scale=scale, noise=noise, **options)


def truth(act: str, **options) -> Callable[..., Tensor]:
    def run(*tensors: Tensor) -> Tensor:
        with gan_fast.reference_mode():
            return function(act, **options)(*tensors)

    return run


def clamp_between(act: str, tensors: list[Tensor], **options) -> float:
    """A clamp in the widest gap between the middle results: none lies so close that rounding decides on its side."""
    sizes = truth(act, **options)(*(t.double() for t in tensors)).abs().flatten().sort().values
    middle = sizes[len(sizes) // 4 : len(sizes) * 7 // 8]
    at = int(middle.diff().argmax())
    return float((middle[at] + middle[at + 1]) / 2)


def check(act: str, tensors: list[Tensor], *, second: bool = True, **options) -> None:
    magnitude = 2 * sum(float(t.double().abs().max()) if t.numel() else 0.0 for t in tensors)
    # terms of a gradient that cancel are judged by their own size
    agree(
        function(act, **options),
        truth(act, **options),
        tensors,
        kind="reduced",
        value_magnitude=magnitude,
        second=second,
        output_dtype=tensors[0].dtype,
    )


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_reference(dtype, act, device):
    for layout in ("contiguous", "channels_last"):
        tensors = [t.to(device) for t in inputs_of(SHAPE, dtype)]
        tensors[0] = lay_out(tensors[0], layout)
        options = {"alpha": 0.3, "gain": 1.7}
        check(act, tensors, **options)
        check(act, tensors, clamp=clamp_between(act, tensors, **options), **options)
        check(act, tensors[:2])


@given(
    dtype=strategies.dtypes,
    shape=strategies.shapes(min_dims=1, max_dims=5, max_side=5),
    dim=st.integers(-5, 4),
    act=st.sampled_from(tuple(ACTIVATIONS)),
    layout=strategies.layouts,
    seed=strategies.seeds,
    biased=st.booleans(),
)
def test_any_rank_dim_and_layout(dtype, shape, dim, act, layout, seed, biased):
    dim = dim % len(shape) - (len(shape) if dim < 0 else 0)
    x = lay_out(draw_values(shape, "normal", seed, dtype), layout)
    tensors = [x, draw_values((shape[dim],), "normal", seed + 1, dtype)] if biased else [x]
    check(act, tensors, dim=dim, second=dtype == torch.float64)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_instruction_set(capability, act):
    """Rows below, at and above a vector, pixels that share one, a chunk of a row and a group of pixels."""
    with cpu_capability(capability):
        for dtype in DTYPES:
            for shape, layout in (
                ((2, 35, 3, 5), "channels_last"),
                ((2, 24, 5, 5), "channels_last"),  # four pixels make whole steps, or one and a rest
                ((2, 3, 9, 13), "channels_last"),
                ((2, 3, 9, 13), "contiguous"),
                ((3, 33), "contiguous"),
            ):
                tensors = inputs_of(shape, dtype)
                tensors[0] = lay_out(tensors[0], layout)
                check(act, tensors if len(shape) > 2 else tensors[:3])
    if capability != "default":
        with cpu_capability(capability):
            tensors = [t.requires_grad_() for t in inputs_of((2, 2, 2, 3), torch.float64)]
            check_derivatives(function(act, gain=1.3), tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_more_than_one_chunk(dtype):
    for shape, layout in (
        ((2, 3, 70, 61), "contiguous"),
        ((2, 130, 20, 21), "channels_last"),
        ((1, 1, 65, 64), "contiguous"),
    ):
        for noise in ("batched", "one", "spatial"):
            tensors = inputs_of(shape, dtype, noise=noise)
            tensors[0] = lay_out(tensors[0], layout)
            check("lrelu", tensors)
        check("linear", tensors[:3])
        check("swish", tensors)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_first_and_second_order_numerically(act, layout):
    for noise, clamp in (("batched", None), ("spatial", 0.9)):
        tensors = inputs_of((2, 2, 2, 3), torch.float64, noise=noise, seed=3)
        tensors[0] = lay_out(tensors[0], layout)
        tensors = [t.requires_grad_() for t in tensors]
        check_derivatives(function(act, alpha=0.4, gain=1.3, clamp=clamp), tensors)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_third_order_numerically(act):
    tensors = [t.requires_grad_() for t in inputs_of((2, 2, 1, 2), torch.float64)]

    def gradients(*leaves: Tensor) -> tuple[Tensor, ...]:
        y = function(act, alpha=0.4, clamp=2.5)(*leaves)
        return torch.autograd.grad(
            y, leaves, torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y), create_graph=True
        )

    check_derivatives(gradients, tensors)


def test_a_negative_slope_is_read_from_the_input():
    tensors = [t.requires_grad_() for t in inputs_of((2, 2, 2, 2), torch.float64)]
    for options in ({"alpha": -0.5, "gain": 1.2, "clamp": 0.8}, {"alpha": 0.5, "gain": -1.2}, {"gain": 0.0}):
        check("lrelu", [t.detach() for t in tensors], **options)
        check_derivatives(function("lrelu", **options), tensors)


def test_layouts_give_the_same_and_keep_their_strides():
    x, b, scale, noise = inputs_of((4, 3, 8, 8), torch.float32)
    up = torch.randn(4, 3, 8, 8)
    expected = None
    for layout in ("contiguous", "channels_last", "transposed", "sliced", "strided"):
        leaf = lay_out(x, layout).requires_grad_()
        with poisoned_memory():
            y = ops.bias_act(leaf, b, act="lrelu", scale=scale, noise=noise, clamp=1.0)
            (gradient,) = torch.autograd.grad(y, leaf, up)
        assert y.stride() == gradient.stride() == torch.empty_like(leaf).stride()
        expected = expected or (y.detach(), gradient)
        torch.testing.assert_close(y, expected[0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(gradient, expected[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cotangents_of_any_layout(layout):
    tensors = [t.requires_grad_() for t in inputs_of(SHAPE, torch.float64)]
    y = function("lrelu")(*tensors)
    up = lay_out(torch.randn(SHAPE, dtype=torch.float64), layout)
    for a, b in zip(
        torch.autograd.grad(y, tensors, up), torch.autograd.grad(truth("lrelu")(*tensors), tensors, up), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("act", ["linear", "lrelu", "tanh"])
def test_only_what_is_asked_for_is_computed(act):
    """Each gradient alone equals the one of all, and leaves the rest alone; absent tensors do not shift the others."""
    tensors = inputs_of(SHAPE, torch.float64)
    every = derivatives(function(act), tensors, second=False).gradients
    for present in range(16):
        given = [t if present >> i & 1 or i == 0 else None for i, t in enumerate(tensors)]
        for i, t in enumerate(given):
            if t is None:
                continue
            leaves = [v.detach().requires_grad_(j == i) if v is not None else None for j, v in enumerate(given)]
            y = function(act)(*leaves)
            with gan_fast.reference_mode():
                expected = function(act)(*leaves)
            up = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
            found, exact = (torch.autograd.grad(v, leaves[i], up)[0] for v in (y, expected))
            torch.testing.assert_close(found, exact)
    assert all(g.isfinite().all() for g in every)


def test_parameters_of_other_dtypes():
    """bfloat16 activations with float32 parameters: nothing is rounded on the way, gradients in each input's dtype."""
    x, b, scale, noise = inputs_of(SHAPE, torch.float32)
    for mix in ((torch.float32,) * 3, (torch.float32, torch.bfloat16, torch.float64), (torch.float16,) * 3):
        tensors = [x.bfloat16(), *(t.to(d) for t, d in zip((b, scale, noise), mix, strict=True))]
        for act in ("lrelu", "swish"):
            found = derivatives(function(act), tensors)
            exact = derivatives(truth(act), [t.double() for t in tensors])
            assert found.values[0].dtype == torch.bfloat16
            for g, t, e in zip(found.gradients, tensors, exact.gradients, strict=True):
                assert g.dtype == t.dtype
                wide = torch.float32 if g.dtype == torch.float64 else g.dtype
                assert_close(g.to(wide), e, kind="reduced", magnitude=e.abs().max())


def test_what_is_kept_for_backward():
    """The piecewise linear ones keep their result and no input, unless the scale wants a gradient."""

    def kept(act: str, *, scale_learns: bool) -> list[bool]:
        x, b, scale, _ = inputs_of(SHAPE, torch.float32)
        leaf = x.requires_grad_()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
            y = ops.bias_act(leaf, b, act=act, scale=scale.requires_grad_(scale_learns))
        return [t.data_ptr() in saved for t in (leaf, y)]

    for act in ("relu", "lrelu"):
        assert kept(act, scale_learns=False) == [False, True]
        assert kept(act, scale_learns=True) == [True, True]
    assert kept("linear", scale_learns=False) == [False, False]
    assert kept("linear", scale_learns=True) == [True, False]
    assert kept("swish", scale_learns=False) == [True, False]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_gradient_takes_the_memory_of_one_that_nobody_else_sees(layout):
    tensors = inputs_of(SHAPE, torch.float32)
    tensors[0] = lay_out(tensors[0], layout)
    leaves = [t.requires_grad_() for t in tensors]
    kept: list[Tensor] = []

    def gradients(f: Callable[..., Tensor], *, keep: bool) -> tuple[tuple[Tensor, ...], bool]:
        y = f(*leaves)
        if keep:
            y.register_hook(kept.append)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            found = torch.autograd.grad(y.square().sum(), leaves)
        return found, any(e.name == "gan_fast::bias_act_backward_" for e in profile.events())

    expected, _ = gradients(truth("lrelu"), keep=False)
    for keep in (False, True):
        found, in_place = gradients(function("lrelu"), keep=keep)
        assert in_place != keep
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    torch.testing.assert_close(kept[0], 2 * function("lrelu")(*leaves))


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_nan_infinity_and_the_clamp(act):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e4, -1e4, 0.0, -0.0] * 5)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for clamp in (None, 256.0):
            values = x.to(dtype)
            with gan_fast.reference_mode():
                expected = ops.bias_act(values, dim=0, act=act, clamp=clamp)
            found = ops.bias_act(values, dim=0, act=act, clamp=clamp)
            assert torch.equal(found.isnan(), expected.isnan()) and torch.equal(found.isinf(), expected.isinf())
            torch.testing.assert_close(found, expected, equal_nan=True)
    leaf = torch.tensor([300.0, 256.0, 1.0, -1.0, -256.0, -2000.0]).requires_grad_()
    (g,) = torch.autograd.grad(ops.bias_act(leaf, dim=0, clamp=256).sum(), leaf)
    assert g.tolist() == [0, 0, 1, 1, 0, 0]
    # 0.7 is more than its bfloat16: what is clamped must be known as such
    leaf = torch.tensor([0.9, 0.5, -0.9], dtype=torch.bfloat16).requires_grad_()
    (g,) = torch.autograd.grad(ops.bias_act(leaf, dim=0, act="lrelu", gain=1, alpha=1, clamp=0.7).sum(), leaf)
    assert g.tolist() == [0, 1, 0]


def test_nothing_and_single_pixels():
    for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 1, 1), (1, 1, 1, 1), (2, 3, 1, 5)):
        for act in ("linear", "lrelu", "swish"):
            tensors = inputs_of(shape, torch.float64)
            found, exact = (derivatives(f(act), tensors) for f in (function, truth))
            for what in ("values", "gradients", "second"):
                for a, b in zip(getattr(found, what), getattr(exact, what), strict=True):
                    torch.testing.assert_close(a, b)
    assert ops.bias_act(torch.zeros(0), dim=0, act="lrelu").shape == (0,)


def test_bitwise_repeatable():
    for layout in ("contiguous", "channels_last"):
        tensors = inputs_of((3, 37, 40, 41), torch.float32)
        tensors[0] = lay_out(tensors[0], layout)

        def run(tensors: list[Tensor] = tensors) -> list[Tensor]:
            found = derivatives(function("swish"), tensors, poisoned=False)
            return [*found.values, *found.gradients, *found.second]

        check_bitwise_repeatable(run, counts=(1, 2, 3))


def test_opcheck():
    samples, backward, second = [], [], []
    for act, clamp, dtype in (
        ("lrelu", 1.0, torch.float32),
        ("linear", -1.0, torch.bfloat16),
        ("swish", -1.0, torch.float32),
    ):
        code = ACTIVATIONS[act].code
        numbers = (1, code, 0.2, 1.5, clamp)
        x, b, scale, noise = (t.requires_grad_() for t in inputs_of((2, 3, 4, 5), dtype))
        samples += [
            (x, b, scale, noise, *numbers),
            (lay_out(x.detach(), "channels_last").requires_grad_(), b, None, None, *numbers),
        ]
        y = None if act != "lrelu" else torch.ops.gan_fast.bias_act(*samples[-2]).detach()
        dy = torch.randn(2, 3, 4, 5).to(dtype).requires_grad_()
        backward.append((dy, x, y, b, scale, noise, *numbers, [True] * 4))
        cotangents = tuple(torch.randn_like(t) for t in (x, b, scale, noise))
        second.append((*cotangents, dy, x, y, b, scale, noise, *numbers, [True] * 5))
        second.append(
            (cotangents[0], None, None, None, dy, x, y, b, scale, noise, *numbers, [True, False, False, True, False])
        )
    check_op(torch.ops.gan_fast.bias_act.default, samples)
    check_op(torch.ops.gan_fast.bias_act_backward.default, backward)
    check_op(torch.ops.gan_fast.bias_act_double_backward.default, second[:3])


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_compiled_in_one_graph_with_any_batch_to_second_order(act):
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        pytest.skip("this torch cannot trace autograd.grad")

    def step(x: Tensor, b: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        y = ops.bias_act(x, b, act=act, clamp=2.0, scale=scale, noise=noise)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return y.sum() + g.square().sum()

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        for n in (2, 3, 5):
            leaves = [t.requires_grad_() for t in inputs_of((n, 4, 5, 3), torch.float64, seed=n)]
            found = compiled(*leaves)
            expected = step(*leaves)
            torch.testing.assert_close(found, expected)
            for a, b in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
                torch.testing.assert_close(a, b)


def test_autocast_keeps_the_dtype():
    x, b, scale, noise = inputs_of(SHAPE, torch.float32)
    expected = ops.bias_act(x, b, act="lrelu", scale=scale, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        assert_bitwise_equal(ops.bias_act(x, b, act="lrelu", scale=scale, noise=noise), expected)
        assert ops.bias_act(x.bfloat16(), b, act="lrelu").dtype == torch.bfloat16


def test_torch_func_and_the_references_of_other_devices():
    """Transforms run the reference; its backward formulas are those of its own autograd."""
    tensors = inputs_of((2, 3, 4, 5), torch.float64)
    jvp = torch.func.jvp(function("tanh"), tuple(tensors), tuple(torch.ones_like(t) for t in tensors))[1]
    assert jvp.shape == tensors[0].shape and bool(jvp.any())
    for act, entry in ACTIVATIONS.items():
        numbers = (1, entry.code, 0.3, 1.3, 1.1)
        leaves = [t.detach().requires_grad_() for t in tensors]
        y = reference.bias_act(*leaves, *numbers)
        dy = torch.randn_like(y).requires_grad_()
        first = torch.autograd.grad(y, leaves, dy, create_graph=True)
        t = [torch.randn_like(g) for g in first]
        second = torch.autograd.grad(first, (dy, *leaves), t, allow_unused=True)
        x, b, scale, noise = (v.detach() for v in leaves)
        result = None if reference.reads_input(entry.code, 0.3) else y.detach()
        given = (dy.detach(), x, result, b, scale, noise, *numbers)
        for a, e in zip(reference.bias_act_backward(*given, [True] * 4), first, strict=True):
            torch.testing.assert_close(a, e, msg=act)
        for a, e in zip(reference.bias_act_double_backward(*t, *given, [True] * 5), second, strict=True):
            torch.testing.assert_close(a, torch.zeros_like(a) if e is None else e, msg=act)


@pytest.mark.parametrize("name", OPS)
def test_every_device_has_a_kernel(name):
    # the one that writes over dy runs only where no graph is recorded
    graph = () if name.endswith("_") else ("Autograd",)
    for key in ("CPU", "CUDA", "Meta", "CompositeExplicitAutograd", *graph):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gan_fast::{name}", key), f"{name} has no {key} kernel"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"act": "gelu"}, ValueError, "act='gelu'; expected one of linear, relu, lrelu"),
        ({"dim": 4}, ValueError, r"dim 4 for x of shape \[2, 3, 4, 5\]"),
        ({"b": torch.zeros(4)}, ValueError, r"b of shape \[4\]; expected \[3\]"),
        ({"scale": torch.zeros(3, 2)}, ValueError, r"scale of shape \[3, 2\]; expected \[2, 3\]"),
        ({"scale": torch.zeros(2, 3), "dim": 2}, ValueError, "expected dim 1"),
        (
            {"noise": torch.zeros(2, 3, 4, 5)},
            ValueError,
            r"noise of shape \[2, 3, 4, 5\]; expected \[N or 1, 1, H, W\]",
        ),
        ({"noise": torch.zeros(5, 4)}, ValueError, r"noise of shape \[5, 4\]"),
    ],
)
def test_refused(options, error, message):
    x = torch.zeros(2, 3, 4, 5)
    with pytest.raises(error, match=message):
        ops.bias_act(x, **options)
    with gan_fast.reference_mode(), pytest.raises(error, match=message):
        ops.bias_act(x, **options)
    with pytest.raises(TypeError, match="expected a float32"):
        ops.bias_act(x.long())
