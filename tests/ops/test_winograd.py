"""3x3 convolutions of the CPU by Winograd's F(2x2, 3x3): the three products, and which convolutions they run."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops, reference_mode
from support.checks import check_bitwise_repeatable, check_derivatives, check_op, threads
from support.kernels import CAPABILITIES, cpu_capability, needs_kernels

if needs_kernels.args[0]:
    pytest.skip("gan_fast._C is not built here", allow_module_level=True)

from gan_fast import _C

_aten = torch.ops.aten
_ours = torch.ops.gan_fast
LAST, FLAT = torch.channels_last, torch.contiguous_format
# N, in, out, H, W: channels that fill panels and vectors and that do not, odd sides, one tile, one pixel
SHAPES = [
    (2, 3, 5, 7, 9),
    (3, 32, 64, 8, 8),
    (1, 40, 33, 5, 4),
    (2, 17, 70, 16, 3),
    (1, 1, 1, 1, 1),
    (5, 96, 48, 13, 12),
]


@pytest.fixture(autouse=True)
def always() -> Iterator[None]:
    """Wherever they can, also where they are not the faster ones."""
    before = _C.winograd_mode()
    _C.set_winograd("always")
    yield
    _C.set_winograd(before)


def geometry(padding: tuple[int, int] = (1, 1), transposed: bool = False) -> tuple[object, ...]:
    return [1, 1], list(padding), [1, 1], transposed, [0, 0], 1


def randn(*shape: int, dtype: torch.dtype = torch.float32, order: torch.memory_format = FLAT, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=order)


def runs(function: object, *arguments: object) -> tuple[Tensor, int]:
    """Its result, and how many products were Winograd's."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        result = function(*arguments)  # type: ignore[operator]
    return result, sum(event.name == "gan_fast::winograd" for event in seen.events() or ())


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(capability: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Against float64 sums; the bounds are of the largest entry. In aten's memory order."""
    n, i, o, h, w = shape
    bound = 1e-5 if dtype == torch.float32 else 1e-14
    with cpu_capability(capability):
        for padding, transposed in itertools.product([(0, 0), (1, 1), (2, 2), (0, 2), (1, 0)], [False, True]):
            g = geometry(padding, transposed)
            grown = [side + (2 - 2 * p if transposed else 2 * p - 2) for side, p in zip((h, w), padding, strict=True)]
            if min(grown) < 1:
                continue
            for x_order, w_order in itertools.product((FLAT, LAST), repeat=2):
                x = randn(n, i, h, w, dtype=dtype, order=x_order)
                weight = randn(*((i, o) if transposed else (o, i)), 3, 3, dtype=dtype, order=w_order, seed=1)
                bias, dy = randn(o, dtype=dtype, seed=2), randn(n, o, *grown, dtype=dtype, seed=3)
                want = _aten.convolution(x.double(), weight.double(), bias.double(), *g)
                exact = (dy.double(), x.double(), weight.double(), None, *g, [True, True, False])
                wanted = [want, *_aten.convolution_backward(*exact)[:2]]
                kinds = (dy, x, weight, None, *g, [True, True, False])
                like = [_aten.convolution(x, weight, None, *g), *_aten.convolution_backward(*kinds)[:2]]
                found = [
                    _ours.convolution(x, weight, bias, *g),
                    _ours.convolution_input_gradient(dy, x, weight, *g),
                    _ours.convolution_weight_gradient(dy, x, weight, *g),
                ]
                for name, a, b, model in zip(("y", "dx", "dw"), found, wanted, like, strict=True):
                    assert a.dtype == dtype and a.shape == b.shape, name
                    error = float((a.double() - b).abs().max() / b.abs().max())
                    assert error < bound, (name, padding, transposed, x_order, w_order, error)
                    if min(model.shape[1:]) > 1:  # else strides say nothing
                        assert a.stride() == model.stride(), (name, padding, transposed, x_order, w_order)


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
def test_derivatives(transposed: bool) -> None:
    """To second order through the kernels, in x, w and bias."""
    x = randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    w = randn(*((3, 2) if transposed else (2, 3)), 3, 3, dtype=torch.float64, seed=1).requires_grad_()
    b = randn(2, dtype=torch.float64, seed=2).requires_grad_()
    conv = ops.conv_transpose2d if transposed else ops.conv2d
    _, products = runs(lambda: conv(x, w, b, padding=1).sum().backward())
    assert products == 3
    check_derivatives(lambda x, w, b: conv(x, w, b, padding=1), (x, w, b))


def test_registration() -> None:
    """Shapes and memory orders of the fakes are those of the kernels."""
    for order in (FLAT, LAST):
        x, w = (randn(*shape, order=order).requires_grad_() for shape in ((2, 8, 6, 6), (4, 8, 3, 3)))
        dy = randn(2, 4, 6, 6, order=order).requires_grad_()
        check_op(_ours.convolution.default, [(x, w, None, *geometry())])
        check_op(_ours.convolution_input_gradient.default, [(dy, x, w, *geometry())])
        check_op(_ours.convolution_weight_gradient.default, [(dy, x, w, *geometry())])


def test_as_exact_as_the_sum() -> None:
    """The error of 256 channels in float32 beside oneDNN's own (measured: 0.9 to 1.2 of it).

    Broken: sums of 256 terms in a row 2.6 times the error; Winograd's F(4x4, 3x3), with fewer products, ten times.
    """
    x, w = randn(2, 256, 16, 16).relu(), randn(256, 256, 3, 3, seed=1) / 48
    dy = randn(2, 256, 16, 16, seed=2)

    def errors(backend: object) -> list[float]:
        def of(a: Tensor, b: Tensor) -> float:
            return float((a.double() - b).square().mean().sqrt())

        g = geometry()
        exact = [t.double() for t in (dy, x, w)]
        wanted = [
            F.conv2d(exact[1], exact[2], padding=1),
            *_aten.convolution_backward(*exact, None, *g, [True, True, False])[:2],
        ]
        if backend is _aten:
            y, gradients = (
                F.conv2d(x, w, padding=1),
                _aten.convolution_backward(dy, x, w, None, *g, [True, True, False])[:2],
            )
        else:
            y = _ours.convolution(x, w, None, *g)
            gradients = [
                _ours.convolution_input_gradient(dy, x, w, *g),
                _ours.convolution_weight_gradient(dy, x, w, *g),
            ]
        return [of(a, b) for a, b in zip([y, *gradients], wanted, strict=True)]

    for ours, theirs in zip(errors(_ours), errors(_aten), strict=True):
        assert ours < 1.5 * theirs


@pytest.mark.parametrize("order", [FLAT, LAST], ids=["contiguous", "channels_last"])
def test_the_same_bits_on_any_number_of_threads(order: torch.memory_format) -> None:
    x, w = randn(5, 70, 20, 20, order=order), randn(40, 70, 3, 3, order=order, seed=1)
    dy = randn(5, 40, 20, 20, order=order, seed=2)

    def products() -> list[Tensor]:
        return [
            _ours.convolution(x, w, None, *geometry()),
            _ours.convolution_input_gradient(dy, x, w, *geometry()),
            _ours.convolution_weight_gradient(dy, x, w, *geometry()),
        ]

    check_bitwise_repeatable(products)


def test_images_in_groups() -> None:
    """Contiguous images are copied a few at a time; these are several groups."""
    x, w = randn(5, 48, 160, 160), randn(48, 48, 3, 3, seed=1) / 20
    want = F.conv2d(x, w, padding=1)
    torch.testing.assert_close(ops.conv2d(x, w, padding=1), want, rtol=0, atol=1e-5)
    dw = _ours.convolution_weight_gradient(want, x, w, *geometry())
    other = _aten.convolution_backward(want, x, w, None, *geometry(), [False, True, False])[1]
    torch.testing.assert_close(dw, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_calls_of_several_threads_do_not_share_scratch() -> None:
    inputs = [(randn(2, 33, 24, 24, seed=s), randn(35, 33, 3, 3, seed=s + 9)) for s in range(4)]
    wanted = [ops.conv2d(x, w, padding=1) for x, w in inputs]
    wrong = []

    def work(k: int) -> None:
        for _ in range(20):
            if not torch.equal(ops.conv2d(*inputs[k], padding=1), wanted[k]):
                wrong.append(k)

    with threads(1):
        workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not wrong


def test_what_is_not_finite_is_seen() -> None:
    x = randn(1, 24, 8, 8)
    x[0, 0, 3, 3] = float("inf")
    y = ops.conv2d(x, randn(24, 24, 3, 3, seed=1), padding=1)
    assert not y[:, :, 2:5, 2:5].isfinite().any()
    assert y[:, :, 6:, 6:].isfinite().all()


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((2, 4, 8, 8), (4, 4, 3, 3), {"stride": 2}),
        ((2, 4, 8, 8), (4, 2, 3, 3), {"groups": 2}),
        ((2, 4, 8, 8), (4, 4, 3, 3), {"dilation": 2}),
        ((2, 4, 8, 8), (4, 4, 3, 3), {"padding": 3}),
        ((2, 4, 8, 8), (4, 4, 1, 1), {}),
        ((0, 4, 8, 8), (4, 4, 3, 3), {}),
    ],
    ids=["stride", "groups", "dilation", "padding", "1x1", "empty"],
)
def test_other_convolutions_are_torchs(x: tuple[int, ...], w: tuple[int, ...], options: dict[str, int]) -> None:
    images, kernels = randn(*x), randn(*w)
    y, products = runs(lambda: ops.conv2d(images, kernels, **options))
    assert products == 0 and torch.equal(y, F.conv2d(images, kernels, **options))


def test_wrong_arguments_are_refused_as_torch_does() -> None:
    with pytest.raises(RuntimeError, match="to have 4 channels, but got 3"):
        ops.conv2d(randn(2, 3, 8, 8), randn(4, 4, 3, 3))
    with pytest.raises(RuntimeError, match="bias"):
        ops.conv2d(randn(2, 4, 8, 8), randn(4, 4, 3, 3), randn(5))
    with pytest.raises(RuntimeError):
        _ours.convolution_weight_gradient(randn(2, 4, 9, 9), randn(2, 4, 8, 8), randn(4, 4, 3, 3), *geometry())


def test_the_rule() -> None:
    """auto: channels and tiles enough, float32 or float64, not on the baseline's instruction set; never: none."""
    few, many = (randn(8, 8, 32, 32), randn(8, 8, 3, 3)), (randn(8, 32, 32, 32), randn(32, 32, 3, 3))
    _C.set_winograd("auto")
    with cpu_capability("avx2"):
        assert runs(lambda: ops.conv2d(*many, padding=1))[1] == 1
        assert runs(lambda: ops.conv2d(*few, padding=1))[1] == 0
        assert runs(lambda: ops.conv2d(many[0][:, :, :4, :4], many[1], padding=1))[1] == 0
        assert runs(lambda: ops.conv2d(*(t.bfloat16() for t in many), padding=1))[1] == 0
        with reference_mode():
            assert runs(lambda: ops.conv2d(*many, padding=1))[1] == 0
        _C.set_winograd("never")
        assert runs(lambda: ops.conv2d(*many, padding=1))[1] == 0
    _C.set_winograd("auto")
    with cpu_capability("default"):
        assert runs(lambda: ops.conv2d(*many, padding=1))[1] == 0


def test_the_environment_variable() -> None:
    program = "from gan_fast import _C; print(_C.winograd_mode())"

    def ask(value: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        environment = {**os.environ, "GAN_FAST_WINOGRAD": value, "PYTHONPATH": path}
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)

    assert ask("never").stdout.strip() == "never"
    assert "GAN_FAST_WINOGRAD is sometimes; expected one of auto, always, never" in ask("sometimes").stderr
    with pytest.raises(ValueError, match="expected one of auto, always, never"):
        _C.set_winograd("often")
