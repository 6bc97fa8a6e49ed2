"""filtered_lrelu: every kernel against the reference in float64, to second order.

Images, biases and filters are multiples of 1/8: t is then exact in every dtype, so kernel and truth have the same mask,
and what is compared is arithmetic and not luck at the kinks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gan_fast
from gan_fast import ops
from gan_fast.reference import filtered_lrelu as reference
from support import strategies
from support.checks import check_bitwise_repeatable, check_derivatives, check_op
from support.kernels import CAPABILITIES, cpu_capability, needs_kernels
from support.reference_runner import agree, eighths, poisoned_memory
from support.strategies import LAYOUTS, lay_out
from support.tolerances import DTYPES, assert_close

pytestmark = needs_kernels
OPS = ("filtered_lrelu", "filtered_lrelu_backward", "filtered_lrelu_tangent")


class Setting(NamedTuple):
    """The arguments but images, bias and devices."""

    fu: Tensor | None
    fd: Tensor | None
    up: int
    down: int
    padding: list[int]
    gain: float = 2**0.5
    slope: float = 0.2
    clamp: float | None = None
    flip_filter: bool = False

    def public(self, x: Tensor, b: Tensor | None = None) -> Tensor:
        """By the public function."""
        fu, fd = (f if f is None else f.to(x.device) for f in self[:2])
        return ops.filtered_lrelu(x, fu, fd, b, *self[2:])

    def truth(self, x: Tensor, b: Tensor | None = None) -> Tensor:
        """By the reference."""
        fu, fd = (f if f is None else f.to(x.device) for f in self[:2])
        return reference.filtered_lrelu(x, fu, fd, b, *self[2:])

    def with_mask(self, op: Callable[..., Any], x: Tensor, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(y, mask) of the op or of its reference."""
        return op(x, self.fu, self.fd, b, *self[2:], True)


def taps(*shape: int, seed: int = 0) -> Tensor:
    return eighths(torch.empty(shape), seed + sum(shape))


# StyleGAN3's layers (separable, 6 taps a factor, and its radial filter), the other factors, none, and odd ones
SETTINGS = {
    "up2_down2": Setting(taps(12), taps(12, seed=1), 2, 2, [11, 10, 11, 10], clamp=100.0),
    "up4_down2_radial": Setting(taps(24), taps(12, 12), 4, 2, [14, 13, 14, 13]),
    "up2_down4": Setting(taps(8), taps(16), 2, 4, [9, 12, 10, 8], slope=0.0, flip_filter=True),
    "up4_down4": Setting(taps(16), taps(16), 4, 4, [15, 15, 15, 14], clamp=30.0),
    "plain": Setting(None, None, 1, 1, [0, 0, 0, 0], gain=1.0),
    "up1_down2": Setting(None, taps(8), 1, 2, [4, 3, 3, 4]),
    "up2_down1": Setting(taps(8), None, 2, 1, [4, 3, -3, 9], slope=1.5),
    "odd": Setting(taps(3, 5), taps(7, 2), 3, 2, [5, -2, 8, 1], clamp=5.0),
}


def check(setting: Setting, x: Tensor, *, b: Tensor | None = None, second: bool = True) -> None:
    """Sums of products in order of size of the largest result."""
    inputs = [x] if b is None else [x, b]
    with torch.no_grad():
        wide = [t.cpu().double() for t in inputs]
        largest = setting.truth(*wide).abs().max() if x.numel() else 0.0
    agree(
        setting.public,
        setting.truth,
        inputs,
        kind="reduced",
        value_magnitude=largest,
        second=second,
        output_dtype=x.dtype,
    )


def images(*shape: int, dtype: torch.dtype = torch.float32, layout: str = "contiguous", seed: int = 0) -> Tensor:
    return lay_out(eighths(torch.empty(shape, dtype=dtype), seed), layout)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_reference(dtype, setting, device):
    for layout in ("contiguous", "channels_last"):
        check(setting, images(2, 3, 9, 14, dtype=dtype, layout=layout).to(device))
    check(setting, images(1, 35, 4, 5, dtype=dtype, layout="channels_last").to(device), second=False)


@given(
    dtype=strategies.dtypes,
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    up=st.integers(1, 4),
    down=st.integers(1, 4),
    filters=st.lists(st.sampled_from(((), (1,), (2,), (5,), (12,), (1, 3), (4, 1), (3, 4))), min_size=2, max_size=2),
    padding=st.lists(st.integers(-3, 14), min_size=4, max_size=4),
    clamp=st.sampled_from((None, 3.3)),
    flip=st.booleans(),
    layout=strategies.layouts,
    seed=strategies.seeds,
)
def test_any_geometry(dtype, shape, up, down, filters, padding, clamp, flip, layout, seed):
    fu, fd = (taps(*f, seed=seed % 1000) if f else None for f in filters)
    setting = Setting(fu, fd, up, down, padding, clamp=clamp, flip_filter=flip)
    x = images(*shape, dtype=dtype, layout=layout, seed=seed)
    if min(reference.output_size(x, fu, fd, up, down, padding)) < 1:
        with pytest.raises(ValueError, match="no result"):
            setting.public(x)
        return
    check(setting, x, second=dtype == torch.float64)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_instruction_set(capability, dtype):
    """Several tiles of columns, rows of many lengths, and every path of the mask."""
    with cpu_capability(capability):
        for setting in (SETTINGS["up2_down2"], SETTINGS["odd"]):
            for shape, layout in (
                ((1, 1, 6, 200), "contiguous"),
                ((1, 40, 5, 41), "channels_last"),
                ((1, 2, 3, 3), "contiguous"),
            ):
                check(setting, images(*shape, dtype=dtype, layout=layout), second=False)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_the_mask_is_the_references(setting):
    for layout in ("contiguous", "channels_last"):
        x, b = images(2, 18, 11, 70, layout=layout), images(18)
        with poisoned_memory():
            y, mask = setting.with_mask(torch.ops.gan_fast.filtered_lrelu, x, b)
        expected, expected_mask = setting.with_mask(reference.filtered_lrelu_op, x, b)
        assert_close(y, expected.double(), kind="reduced", magnitude=expected.abs().max())
        phases = math.lcm(setting.up, setting.down)
        size = reference.intermediate_size(setting.fd, setting.down, y.shape[2:])
        codes, expected_codes = (reference.unpack(m, phases, *size) for m in (mask, expected_mask))
        assert torch.equal(codes, expected_codes)
        assert mask.stride() == expected_mask.stride() and y.stride() == expected.stride()
        without, none = torch.ops.gan_fast.filtered_lrelu(x, *setting[:2], b, *setting[2:], False)
        assert torch.equal(without, y) and none.numel() == 0


@pytest.mark.parametrize(("shape", "layout"), [((1, 2, 150, 90), "contiguous"), ((1, 40, 70, 33), "channels_last")])
def test_bitwise_repeatable(shape, layout):
    """Rows are shared out by the number of threads, and results do not show it."""
    x = torch.randn(shape).to(memory_format=getattr(torch, layout + "_format", torch.channels_last)).requires_grad_()
    setting = SETTINGS["up2_down2"]

    def run() -> list[Tensor]:
        y = setting.public(x)
        return [y, *torch.autograd.grad(y, x, y.detach())]

    check_bitwise_repeatable(run)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same(layout):
    setting, x = SETTINGS["up2_down2"], lay_out(torch.randn(2, 5, 7, 6), layout)
    found, expected = setting.public(x), setting.public(x.contiguous())
    torch.testing.assert_close(found, expected)
    last = layout == "channels_last"
    assert found.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    leaf = x.detach().requires_grad_()
    # a gradient in the other layout
    other = lay_out(torch.randn_like(expected), "contiguous" if last else "channels_last")
    (dx,) = torch.autograd.grad(setting.public(leaf), leaf, other)
    leaf = x.contiguous().requires_grad_()
    torch.testing.assert_close(dx, torch.autograd.grad(setting.public(leaf), leaf, other)[0])


@pytest.mark.parametrize("setting", ["up2_down2", "up4_down2_radial", "odd"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_first_to_third_order_numerically(setting, layout):
    s = SETTINGS[setting]
    x = lay_out(torch.randn(1, 2, 3, 2, dtype=torch.float64), layout).requires_grad_()
    b = torch.randn(2, dtype=torch.float64).requires_grad_()
    check_derivatives(s.public, [x, b])

    def gradient(x: Tensor, b: Tensor) -> Tensor:
        return torch.autograd.grad(s.public(x, b).square().sum(), x, create_graph=True)[0]

    check_derivatives(gradient, [x, b])


def test_the_derivatives_are_adjoint_ops_with_derivatives_of_their_own():
    s = SETTINGS["odd"]
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    y, mask = s.with_mask(torch.ops.gan_fast.filtered_lrelu, x)
    shared = (*s[2:5], s.gain, s.slope, s.flip_filter)
    tangent = lambda v: torch.ops.gan_fast.filtered_lrelu_tangent(v, s.fu, s.fd, mask, *shared)  # noqa: E731
    backward = lambda d: torch.ops.gan_fast.filtered_lrelu_backward(d, s.fu, s.fd, mask, [5, 4], *shared)  # noqa: E731
    v, d = torch.randn_like(x).requires_grad_(), torch.randn_like(y).requires_grad_()
    torch.testing.assert_close((tangent(v) * d).sum(), (v * backward(d)).sum())
    torch.testing.assert_close(tangent(v), reference.filtered_lrelu_tangent(v, s.fu, s.fd, mask, *shared))
    torch.testing.assert_close(backward(d), reference.filtered_lrelu_backward(d, s.fu, s.fd, mask, [5, 4], *shared))
    check_derivatives(tangent, [v])
    check_derivatives(backward, [d])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_bias_takes_its_own_dtype_and_the_sum_of_the_gradient(dtype):
    s, x, b = SETTINGS["up2_down2"], images(2, 3, 6, 5, dtype=dtype).requires_grad_(), images(3).requires_grad_()
    y = s.public(x, b)
    check(s, x.detach(), b=None)
    assert_close(y, s.truth(x.double(), b.double()), kind="reduced", magnitude=y.detach().abs().max().double())
    dx, db = torch.autograd.grad(y, [x, b], eighths(y, 3))
    assert db.dtype == b.dtype and dx.dtype == dtype
    torch.testing.assert_close(db, dx.float().sum((0, 2, 3)))
    (alone,) = torch.autograd.grad(s.public(x.detach(), b), b, eighths(y, 3))
    assert torch.equal(alone, db)


def test_nothing_one_pixel_and_nan():
    s = SETTINGS["up2_down2"]
    for shape in ((0, 3, 5, 4), (2, 0, 5, 4)):
        x = torch.zeros(shape).requires_grad_()
        b = torch.zeros(shape[1]).requires_grad_()
        y = s.public(x, b)
        assert y.shape == (*shape[:2], 5, 4)
        dx, db = torch.autograd.grad(y.sum(), [x, b])
        assert dx.shape == shape and not db.any()
    for layout in ("contiguous", "channels_last"):
        check(s, images(1, 1, 1, 1, layout=layout))
        check(s, images(3, 20, 1, 1, layout=layout))
    x = torch.ones(1, 2, 8, 8)
    x[0, 1, 4, 4] = torch.nan
    assert s.public(x).isnan().flatten(2).any(2).tolist() == [[False, True]]


def test_the_gradient_at_the_clamp_itself_is_that_of_the_inside():
    found = []
    for mode in (contextlib.nullcontext(), gan_fast.reference_mode()):
        x = torch.tensor([-10.0, -5.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5).requires_grad_()
        with mode:
            ops.filtered_lrelu(x, gain=1.0, clamp=1.0).sum().backward()
        found.append(x.grad.flatten().tolist())
    assert found[0] == found[1] == pytest.approx([0.0, 0.2, 0.2, 1.0, 0.0])


def test_no_mask_where_no_gradient_is_wanted():
    s, x = SETTINGS["up2_down2"], torch.randn(1, 2, 6, 6)
    arguments = (*s[:2], None, *s[2:], False)
    assert torch.ops.gan_fast.filtered_lrelu(x, *arguments)[1].numel() == 0
    assert torch.ops.gan_fast.filtered_lrelu(x.requires_grad_(), *arguments)[1].numel() > 0
    with torch.no_grad():
        assert torch.ops.gan_fast.filtered_lrelu(x, *arguments)[1].numel() == 0


def test_opcheck():
    forward, derivatives = [], []
    for s, layout, dtype in (
        (SETTINGS["up2_down2"], "contiguous", torch.float32),
        (SETTINGS["odd"], "channels_last", torch.bfloat16),
    ):
        x = images(2, 3, 6, 5, dtype=dtype, layout=layout)
        forward.append((x.clone().requires_grad_(), *s[:2], torch.randn(3).requires_grad_(), *s[2:], False))
        y, mask = s.with_mask(torch.ops.gan_fast.filtered_lrelu, x)
        shared = (*s[2:5], s.gain, s.slope, s.flip_filter)
        derivatives.append((x.requires_grad_(), y.requires_grad_(), *s[:2], mask, shared))
    check_op(torch.ops.gan_fast.filtered_lrelu.default, forward)
    tangents = [(x, fu, fd, mask, *shared) for x, _, fu, fd, mask, shared in derivatives]
    check_op(torch.ops.gan_fast.filtered_lrelu_tangent.default, tangents[:1])
    backwards = [(y, fu, fd, mask, list(x.shape[2:]), *shared) for x, y, fu, fd, mask, shared in derivatives]
    check_op(torch.ops.gan_fast.filtered_lrelu_backward.default, backwards[1:])


def test_compiled_in_one_graph_with_any_size():
    s = SETTINGS["up4_down2_radial"]

    def step(x: Tensor, b: Tensor) -> Tensor:
        return s.public(x * 2, b)

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (2, 3, 5):
        results = []
        for f in (compiled, step):
            x, b = images(n, 3, 4 + n, 9 - n).requires_grad_(), images(3).requires_grad_()
            with poisoned_memory():
                y = f(x, b)
                results.append((y, *torch.autograd.grad(y, [x, b], y.detach())))
        for a, e in zip(*results, strict=True):
            assert torch.equal(a, e)


def test_transforms_and_reference_mode_run_the_reference():
    s, x = SETTINGS["up2_down2"], images(2, 3, 5, 4, dtype=torch.float64)
    expected = s.public(x)
    with gan_fast.reference_mode():
        torch.testing.assert_close(s.public(x), expected)
    torch.testing.assert_close(torch.func.vmap(lambda a: s.public(a[None])[0])(x), expected)
    v = images(2, 3, 5, 4, dtype=torch.float64, seed=5)
    _, tangent = torch.func.jvp(s.public, (x,), (v,))
    _, mask = s.with_mask(torch.ops.gan_fast.filtered_lrelu, x)
    again = torch.ops.gan_fast.filtered_lrelu_tangent(v, *s[:2], mask, *s[2:5], s.gain, s.slope, s.flip_filter)
    torch.testing.assert_close(tangent, again)


def test_autocast_keeps_the_dtype():
    with torch.autocast("cpu", torch.bfloat16):
        assert SETTINGS["up2_down2"].public(torch.randn(1, 2, 6, 6)).dtype == torch.float32


@pytest.mark.parametrize("name", OPS)
def test_every_device_has_a_kernel(name):
    for key in ("CPU", "CUDA", "Meta", "Autograd", "CompositeExplicitAutograd"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gan_fast::{name}", key), f"{name} has no {key} kernel"


X = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X[0]}, ValueError, r"x of shape \[2, 4, 4\]; expected images"),
        ({"x": X.long()}, TypeError, "x of torch.int64; expected a floating-point"),
        ({"x": X, "fu": torch.ones(1, 2, 3)}, ValueError, r"fu of shape \[1, 2, 3\]"),
        ({"x": X, "fd": torch.ones(3, requires_grad=True)}, ValueError, "fd that requires grad"),
        ({"x": X, "fd": torch.ones(3, device="meta")}, ValueError, "x on cpu and fd on meta; move fd to cpu"),
        ({"x": X, "b": torch.ones(3)}, ValueError, r"b of shape \[3\] on cpu; expected \[2\]"),
        ({"x": X, "up": 0}, ValueError, "up=0 and down=1"),
        ({"x": X, "clamp": -1.0}, ValueError, "clamp=-1.0; expected a magnitude"),
        ({"x": X, "padding": [1, 2, 3]}, ValueError, "padding of 3 numbers"),
        ({"x": X, "fd": torch.ones(9)}, ValueError, "no result: x of .* give more padding"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.filtered_lrelu(**arguments)
    with gan_fast.reference_mode(), pytest.raises(error, match=message):
        ops.filtered_lrelu(**arguments)


def test_a_mask_of_another_pass_is_refused():
    s = SETTINGS["up2_down2"]
    _, mask = s.with_mask(torch.ops.gan_fast.filtered_lrelu, X)
    with pytest.raises(ValueError, match="the forward pass's mask"):
        torch.ops.gan_fast.filtered_lrelu_tangent(X[..., :3], *s[:2], mask, *s[2:5], s.gain, s.slope, s.flip_filter)
