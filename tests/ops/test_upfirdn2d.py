"""`upfirdn2d` and its kin: the reference against the formula, every kernel against the reference, to second order."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import gan_fast
from gan_fast import ops
from gan_fast.reference import upfirdn2d as reference
from support import strategies
from support.checks import check_bitwise_repeatable, check_derivatives, check_op
from support.kernels import CAPABILITIES, cpu_capability, needs_kernels
from support.reference_runner import agree, derivatives, poisoned_memory
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import DTYPES, assert_close

pytestmark = needs_kernels


class Call(NamedTuple):
    """Arguments of `upfirdn2d` behind the images."""

    f: Tensor | None
    up: tuple[int, int] = (1, 1)
    down: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    flip_filter: bool = False
    gain: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return ops.upfirdn2d(x, *self)

    def truth(self, x: Tensor) -> Tensor:
        return reference.upfirdn2d(x, *self)

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(height, width) of the result."""
        fw, fh = reference.taps(self.f)
        x0, x1, y0, y1 = self.padding
        height = (shape[2] * self.up[1] + y0 + y1 - fh) // self.down[1] + 1
        return height, (shape[3] * self.up[0] + x0 + x1 - fw) // self.down[0] + 1


def by_the_formula(x: Tensor, call: Call) -> Tensor:
    """Sums written down as the definition says, in float64."""
    f = torch.ones(1, 1) if call.f is None else call.f
    f = torch.outer(f.double(), f.double()) if f.dim() == 1 else f.double()
    h = f if call.flip_filter else f.flip(0, 1)
    (height, width), (ux, uy), (dx, dy) = call.size(tuple(x.shape)), call.up, call.down
    y = torch.zeros(*x.shape[:2], height, width, dtype=torch.float64)
    for i, j, k, m in itertools.product(range(height), range(width), range(h.shape[0]), range(h.shape[1])):
        v, u = i * dy + k - call.padding[2], j * dx + m - call.padding[0]
        if v % uy == 0 and u % ux == 0 and 0 <= v // uy < x.shape[2] and 0 <= u // ux < x.shape[3]:
            y[:, :, i, j] += h[k, m] * x[:, :, v // uy, u // ux].double()
    return y * call.gain


def magnitude(x: Tensor, call: Call) -> float:
    """The largest sum of absolute terms that a result or a gradient can be."""
    f = torch.ones(1, 1) if call.f is None else call.f
    weight = f.double().abs().sum() ** (1 if f.dim() == 2 else 2) * abs(call.gain)
    return float(weight * max(float(x.double().abs().max()) if x.numel() else 0.0, 2.0))


def check(x: Tensor, call: Call, *, second: bool = True) -> None:
    scale = magnitude(x, call)
    agree(call, call.truth, [x], value_magnitude=scale, gradient_magnitude=scale, second=second, output_dtype=x.dtype)


def taps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


BINOMIAL = ops.setup_filter([1, 3, 3, 1])
CALLS = {
    "up2": Call(BINOMIAL, (2, 2), (1, 1), (2, 1, 2, 1), gain=4),
    "up2, odd": Call(taps(4, 4), (2, 2), (1, 1), (1, 2, 3, 2)),
    "down2": Call(BINOMIAL, (1, 1), (2, 2), (1, 1, 1, 1)),
    "filter": Call(BINOMIAL, (1, 1), (1, 1), (2, 1, 2, 1)),
    "separable up2": Call(taps(12), (2, 2), (1, 1), (6, 5, 6, 5)),
    "separable down2": Call(taps(12), (1, 1), (2, 2), (5, 5, 5, 5), True),
    "separable down4": Call(taps(24), (1, 1), (4, 4), (11, 10, 11, 10)),
    "matrix of full rank": Call(taps(3, 5), (2, 3), (3, 2), (4, -1, 2, 3), gain=-0.5),
    "a column": Call(taps(5, 1), (1, 2), (1, 1), (0, 0, 3, 1)),
    "identity": Call(None, (3, 1), (1, 2), (0, 2, -1, 1)),
    "crop": Call(taps(2, 2), (1, 1), (1, 1), (-1, 0, 2, -2)),
    "more zeros than taps": Call(taps(2), (4, 4), (3, 3), (1, 3, 0, 5)),
}


@st.composite
def calls(draw: st.DrawFn) -> Call:
    side = st.integers(1, 7)
    f = draw(
        st.one_of(
            st.none(),
            st.builds(lambda n: taps(n), st.integers(1, 13)),
            st.builds(lambda h, w: taps(h, w), side, side),
            st.builds(lambda h, w: torch.outer(taps(h), taps(w, seed=1)), side, side),
            st.just(BINOMIAL),
        )
    )
    factor = st.sampled_from((1, 1, 2, 2, 3, 4))
    pad = st.integers(-3, 6)
    return Call(
        f,
        (draw(factor), draw(factor)),
        (draw(factor), draw(factor)),
        (draw(pad), draw(pad), draw(pad), draw(pad)),
        draw(st.booleans()),
        draw(st.sampled_from((1.0, 4.0, -0.5))),
    )


@given(call=calls(), height=st.integers(1, 5), width=st.integers(1, 6))
def test_the_reference_is_the_formula(call, height, width):
    x = draw_values((2, 2, height, width), "normal", 1)
    assume(min(call.size(tuple(x.shape))) >= 1)
    assert_close(call.truth(x), by_the_formula(x, call), magnitude=magnitude(x, call))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_against_the_reference(name, layout, device):
    call = CALLS[name]._replace(f=None if CALLS[name].f is None else CALLS[name].f.to(device))
    for dtype in DTYPES:
        check(lay_out(draw_values((2, 3, 7, 9), "normal", 1, dtype), layout).to(device), call)


@given(
    call=calls(),
    dtype=strategies.dtypes,
    shape=strategies.shapes(min_dims=4),
    values=st.sampled_from(("normal", "wide", "ties", "zeros")),
    seed=strategies.seeds,
    layout=strategies.layouts,
)
def test_any_geometry(call, dtype, shape, values, seed, layout):
    assume(min(call.size(shape)) >= 1)
    check(lay_out(draw_values(shape, values, seed, dtype), layout), call, second=dtype == torch.float64)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_instruction_set(capability, dtype):
    """Widths and channels below, at and above one vector and one unrolled loop, and rows of more than one tile."""
    with cpu_capability(capability):
        for call, (channels, width) in itertools.product(CALLS.values(), [(1, 33), (17, 5), (64, 3), (3, 70)]):
            for layout in ("contiguous", "channels_last"):
                check(lay_out(draw_values((1, channels, 4, width), "normal", 3, dtype), layout), call, second=False)
        for layout, shape in (("contiguous", (1, 1, 3, 4500)), ("channels_last", (1, 130, 3, 60))):
            for name in ("up2", "down2", "separable down4", "matrix of full rank"):
                check(lay_out(draw_values(shape, "normal", 3, dtype), layout), CALLS[name], second=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_small_and_empty(dtype):
    for call in CALLS.values():
        if min(call.size((1, 1, 1, 1))) >= 1:
            check(draw_values((3, 2, 1, 1), "normal", 1, dtype), call, second=False)
        for shape in ((0, 3, 5, 6), (2, 0, 5, 6)):
            x = torch.zeros(shape, dtype=dtype).requires_grad_()
            y = call(x)
            assert y.shape == (*shape[:2], *call.size(shape)) and y.dtype == dtype
            assert torch.autograd.grad(y.sum(), x)[0].shape == shape
    # a place that no pixel reaches is zero, also where there are no pixels at all
    y = ops.upfirdn2d(torch.ones(1, 1, 2, 2, dtype=dtype), BINOMIAL, padding=[9, 9, -7, 12])
    assert y.shape == (1, 1, 4, 17) and not y.any()


def test_layouts_stay_and_give_the_same():
    x = torch.randn(2, 5, 8, 6)
    for call in CALLS.values():
        expected = call(x)
        for layout in ("channels_last", "transposed", "sliced", "strided"):
            y = call(lay_out(x, layout))
            torch.testing.assert_close(y, expected)
            form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
            assert y.is_contiguous(memory_format=form)


@pytest.mark.parametrize("name", CALLS)
def test_second_and_third_order_numerically(name):
    x = draw_values((1, 2, 4, 5), "normal", 1).requires_grad_()
    call = CALLS[name]
    check_derivatives(call, [x])
    check_derivatives(call, [x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()])

    def curved(a: Tensor) -> Tensor:
        """The gradient of a function that is not quadratic in the images."""
        return torch.autograd.grad(call(a).pow(3).sum(), a, create_graph=True)[0]

    check_derivatives(curved, [x])


def test_the_gradient_is_the_adjoint():
    for call in CALLS.values():
        x = draw_values((2, 3, 6, 7), "normal", 1).requires_grad_()
        y = call(x)
        c = draw_values(tuple(y.shape), "normal", 2)
        (g,) = torch.autograd.grad(y, x, c)
        torch.testing.assert_close((y * c).sum(), (x * g).sum())


def test_nan_and_inf_reach_what_they_should_and_nothing_else():
    for layout, bad in itertools.product(("contiguous", "channels_last"), (torch.nan, torch.inf)):
        x = torch.randn(1, 2, 9, 9)
        x[0, 1, 4, 5] = bad
        for call in CALLS.values():
            y, expected = call(lay_out(x, layout)), by_the_formula(x, call)
            assert torch.equal(y.isfinite(), expected.isfinite())


def test_bitwise_repeatable():
    x = torch.randn(3, 7, 50, 41).requires_grad_()

    def run() -> list[Tensor]:
        results = []
        for call in (CALLS["up2"], CALLS["matrix of full rank"]):
            y = call(x)
            results += [y, torch.autograd.grad(y.square().sum(), x)[0]]
        return results

    check_bitwise_repeatable(run)


def test_filters_of_other_dtypes():
    x = draw_values((2, 3, 6, 7), "normal", 1, torch.float32)
    f = torch.tensor([1.0, 2.0, 1.0]) / 4
    expected = ops.filter2d(x, f)
    for dtype in DTYPES:
        assert torch.equal(ops.filter2d(x, f.to(dtype)), expected)
        assert torch.equal(ops.filter2d(x, torch.outer(f, f).to(dtype)), expected)


# ---- The functions around it


def test_setup_filter():
    assert torch.equal(ops.setup_filter([1, 3, 3, 1]), torch.outer(*[torch.tensor([1.0, 3, 3, 1])] * 2) / 64)
    assert ops.setup_filter([1.0] * 8).shape == (8,) and ops.setup_filter([1.0] * 7).shape == (7, 7)
    assert ops.setup_filter([1, 2], separable=True).tolist() == pytest.approx([1 / 3, 2 / 3])
    assert ops.setup_filter(None).tolist() == [[1]] and ops.setup_filter(3, normalize=False).tolist() == [[9]]
    assert ops.setup_filter([[1, 2], [3, 4]], normalize=False, flip_filter=True).tolist() == [[4, 3], [2, 1]]
    assert ops.setup_filter([1, 1], gain=9).sum() == 9 and ops.setup_filter([1.0] * 8, gain=9).sum() == 3
    assert ops.setup_filter(torch.ones(2, dtype=torch.float64).requires_grad_()).dtype == torch.float32


@pytest.mark.parametrize("size", range(1, 8))
def test_helpers_keep_the_size_and_the_place(size):
    f = ops.setup_filter(torch.arange(1.0, size + 1))
    x = torch.randn(2, 3, 12, 18)
    assert ops.filter2d(x, f).shape == x.shape
    assert ops.filter2d(x, f, padding=1).shape == (2, 3, 14, 20)
    for factor in (1, 2, 3):
        assert ops.upsample2d(x, f, factor).shape == (2, 3, 12 * factor, 18 * factor)
        assert ops.downsample2d(x, f, factor).shape == (2, 3, 12 // factor, 18 // factor)
    assert ops.upsample2d(x, f, [1, 4]).shape == (2, 3, 48, 18)
    assert ops.downsample2d(x, f, [3, 2], padding=[0, 1, 2, 0]).shape == (2, 3, 7, 6)
    ones = torch.ones(1, 1, 24, 24)
    for y in (ops.filter2d(ones, f), ops.downsample2d(ones, f), ops.upsample2d(ones, BINOMIAL)):
        torch.testing.assert_close(y[..., 4:-4, 4:-4], torch.ones_like(y[..., 4:-4, 4:-4]))


def test_known_results():
    """A box is torch's own pooling and nearest neighbour; a correlation is torch's convolution."""
    x, box, f = torch.randn(2, 3, 6, 8), ops.setup_filter([1, 1]), taps(4, 4)
    torch.testing.assert_close(ops.downsample2d(x, box), F.avg_pool2d(x, 2))
    torch.testing.assert_close(ops.upsample2d(x, box), F.interpolate(x, scale_factor=2))
    weight = f.expand(3, 1, 4, 4)
    correlated = ops.upfirdn2d(x, f, padding=1, flip_filter=True)
    torch.testing.assert_close(correlated, F.conv2d(x, weight, padding=1, groups=3))
    up = ops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], gain=3)
    torch.testing.assert_close(up, 3 * F.conv_transpose2d(x, weight, stride=2, groups=3)[..., 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (ops.Filter2d([1, 2, 1], padding=1), lambda x, f: ops.filter2d(x, f, padding=1)),
        (ops.Upsample2d(gain=2), lambda x, f: ops.upsample2d(x, f, gain=2)),
        (ops.Downsample2d([1, 2], [2, 1]), lambda x, f: ops.downsample2d(x, f, [2, 1])),
    ],
    ids=lambda m: type(m).__name__,
)
def test_modules(module, function):
    x = torch.randn(2, 3, 8, 6)
    assert list(module.state_dict()) == ["resample_filter"] and not list(module.parameters())
    assert torch.equal(module(x), function(x, module.resample_filter))
    assert isinstance(module, nn.Module) and "filter=" in repr(module)
    torch.testing.assert_close(module.double()(x.double()), module.float()(x).double())


# ---- Where it runs


def test_opcheck():
    samples = []
    for call, dtype in itertools.product(CALLS.values(), (torch.float32, torch.bfloat16)):
        for layout in ("contiguous", "channels_last", "transposed"):
            x = lay_out(draw_values((2, 3, 5, 6), "normal", 1, dtype), layout).requires_grad_()
            size = call.size(tuple(x.shape))[::-1]
            rest = (call.up, call.down, call.padding[::2], size, call.flip_filter, call.gain)
            samples.append((x, call.f, *[list(a) if isinstance(a, tuple) else a for a in rest]))
    check_op(torch.ops.gan_fast.upfirdn2d.default, samples[::5])


def test_compiled_in_one_graph_with_any_size():
    def step(x: Tensor) -> Tensor:
        y = ops.upsample2d(ops.filter2d(x * 2, BINOMIAL), BINOMIAL)
        return ops.downsample2d(y, taps_12, down=[2, 1])

    taps_12 = taps(12)
    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    with poisoned_memory():
        for shape in ((2, 3, 8, 6), (3, 3, 7, 9), (1, 3, 12, 5)):
            x = draw_values(shape, "normal", 1, torch.float32)
            found, expected = (derivatives(f, [x], second=False) for f in (compiled, step))
            torch.testing.assert_close(found.values + found.gradients, expected.values + expected.gradients)


def test_every_device_has_a_kernel():
    for key in ("CPU", "CUDA", "Meta", "Autograd", "CompositeExplicitAutograd"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key("gan_fast::upfirdn2d", key), f"no {key} kernel"
    # what serves other devices, with the strides that are promised for them
    for call, layout in itertools.product(CALLS.values(), ("contiguous", "channels_last")):
        x = lay_out(draw_values((2, 3, 5, 6), "normal", 1, torch.float32), layout)
        size = call.size(tuple(x.shape))[::-1]
        y = reference.upfirdn2d_op(x, call.f, call.up, call.down, call.padding[::2], size, *call[4:])
        expected = call(x)
        assert y.stride() == expected.stride()
        torch.testing.assert_close(y, expected)


def test_transforms_and_reference_mode():
    x = draw_values((2, 3, 6, 5), "normal", 1)
    call = CALLS["down2"]
    with gan_fast.reference_mode():
        torch.testing.assert_close(call(x), call.truth(x))
    value, tangent = torch.func.jvp(call, (x,), (2 * x,))
    torch.testing.assert_close(tangent, 2 * value)
    torch.testing.assert_close(torch.func.vmap(call)(x[:, None]), call(x)[:, None])


def test_autocast_keeps_the_dtype():
    with torch.autocast("cpu", torch.bfloat16):
        assert CALLS["up2"](torch.randn(1, 2, 4, 4)).dtype == torch.float32
        assert CALLS["up2"](torch.randn(1, 2, 4, 4).bfloat16()).dtype == torch.bfloat16


X = torch.randn(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda: ops.upfirdn2d(X[0], BINOMIAL), ValueError, r"shape \[3, 4, 5\]; expected \[N, C, H, W\]"),
        (lambda: ops.upfirdn2d(X.long(), BINOMIAL), TypeError, "images, but got torch.int64"),
        (lambda: ops.filter2d(X, BINOMIAL.long()), TypeError, "floating-point filter, but got torch.int64"),
        (lambda: ops.filter2d(X, torch.ones(1, 2, 2)), ValueError, r"filter of shape \[1, 2, 2\]; expected \[n\]"),
        (lambda: ops.filter2d(X, torch.ones(0)), ValueError, r"filter of shape \[0\]"),
        (lambda: ops.filter2d(X, BINOMIAL.to("meta")), ValueError, "filter on meta for images on cpu"),
        (lambda: ops.filter2d(X, taps(2, 2).requires_grad_()), ValueError, r"requires grad.*f\.detach\(\)"),
        (lambda: ops.upsample2d(X, BINOMIAL, up=0), ValueError, "up=0; expected a factor of at least 1"),
        (lambda: ops.downsample2d(X, BINOMIAL, down=[2]), ValueError, r"down=\[2\]; expected a factor"),
        (lambda: ops.filter2d(X, BINOMIAL, padding=[1, 2, 3]), ValueError, r"padding=\[1, 2, 3\]; expected one number"),
        (
            lambda: ops.upfirdn2d(X, taps(3, 7)),
            ValueError,
            r"4 x 5 images \(height x width\), up \[1, 1\], padding \[0, 0, 0, 0\], a 3 x 7 filter.*would be empty",
        ),
        (lambda: ops.downsample2d(X[..., :1], BINOMIAL, 3), ValueError, "would be empty; pad more"),
        (lambda: ops.setup_filter([]), ValueError, r"taps of shape \[0\]"),
        (lambda: ops.setup_filter([[1, 2]], separable=True), ValueError, r"matrix \[1, 2\] with separable=True"),
        (lambda: ops.setup_filter([1, -1]), ValueError, "sum to zero.*normalize=False"),
        (
            lambda: torch.ops.gan_fast.upfirdn2d(X, None, [1, 1], [1, 1], [0, 0], [5, 0], False, 1.0),
            ValueError,
            r"size of 0 x 5 \(height x width\), which is empty",
        ),
    ],
)
def test_refused(function, error, message):
    with pytest.raises(error, match=message):
        function()
