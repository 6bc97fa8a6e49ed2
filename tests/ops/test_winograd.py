"""3x3 convolutions of the CPU by Winograd's F(2x2, 3x3): the three products, and which convolutions they run."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

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


def runs(function: Callable[[], Tensor | None]) -> tuple[Tensor | None, int]:
    """Its result, and how many products were Winograd's."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        result = function()
    return result, sum(event.name == "gan_fast::winograd" for event in seen.events() or ())


def ours(dy: Tensor, x: Tensor, w: Tensor) -> list[Tensor]:
    """The three products at padding 1: output, input gradient, weight gradient."""
    return [
        _ours.convolution(x, w, None, *geometry()),
        _ours.convolution_input_gradient(dy, x, w, *geometry()),
        _ours.convolution_weight_gradient(dy, x, w, *geometry()),
    ]


def torchs(dy: Tensor, x: Tensor, w: Tensor) -> list[Tensor]:
    gradients = _aten.convolution_backward(dy, x, w, None, *geometry(), [True, True, False])
    return [F.conv2d(x, w, padding=1), *gradients[:2]]


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


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_registration(dtype: torch.dtype, transposed: bool) -> None:
    """Shapes and memory orders of the fakes are those of the kernels."""
    g, side = geometry((0, 2), transposed), (8, 4) if transposed else (4, 8)
    for order in (FLAT, LAST):
        w_shape = (8, 4, 3, 3) if transposed else (4, 8, 3, 3)
        x, w = (randn(*shape, dtype=dtype, order=order).requires_grad_() for shape in ((2, 8, 6, 6), w_shape))
        dy = randn(2, 4, *side, dtype=dtype, order=order).requires_grad_()
        check_op(_ours.convolution.default, [(x, w, None, *g)])
        check_op(_ours.convolution_input_gradient.default, [(dy, x, w, *g)])
        check_op(_ours.convolution_weight_gradient.default, [(dy, x, w, *g)])


@pytest.mark.parametrize("order", [FLAT, LAST], ids=["contiguous", "channels_last"])
def test_as_exact_as_the_sum(order: torch.memory_format) -> None:
    """Root mean square errors of 256 channels in float32, over the results' own (measured: 2.0e-7, 2.3e-7, 3.1e-7).

    oneDNN's: 1.7e-7, 2.2e-7, 2.7e-7 contiguous, 5.9e-7, 8.3e-7, 1.2e-7 channels_last. Broken versions: sums of 256
    terms in a row 4.4e-7, 5.0e-7; Winograd's F(4x4, 3x3), with fewer products, 2e-6.
    """
    x, w = randn(2, 256, 16, 16, order=order).relu(), randn(256, 256, 3, 3, order=order, seed=1) / 48
    dy = randn(2, 256, 16, 16, order=order, seed=2)
    found, wanted = ours(dy, x, w), torchs(dy.double(), x.double(), w.double())
    for a, b, bound in zip(found, wanted, (3e-7, 3.4e-7, 4.5e-7), strict=True):
        error = float((a.double() - b).square().mean().sqrt() / b.square().mean().sqrt())
        assert error < bound, error


@pytest.mark.parametrize("order", [FLAT, LAST], ids=["contiguous", "channels_last"])
def test_the_same_bits_on_any_number_of_threads(order: torch.memory_format) -> None:
    x, w = randn(5, 70, 20, 20, order=order), randn(40, 70, 3, 3, order=order, seed=1)
    dy = randn(5, 40, 20, 20, order=order, seed=2)

    check_bitwise_repeatable(lambda: ours(dy, x, w))


def test_images_in_groups() -> None:
    """Contiguous images are copied as many at a time as fit 8 MB: here two, two and one."""
    x, w = randn(5, 32, 120, 100), randn(48, 32, 3, 3, seed=1) / 20
    y = F.conv2d(x, w, padding=1)
    found, wanted = ours(y, x, w), torchs(y, x, w)
    for a, b in zip(found, wanted, strict=True):
        assert float((a - b).abs().max()) < 1e-5 * float(b.abs().max())


def test_calls_of_several_threads_do_not_share_scratch() -> None:
    """All three products, of sizes that grow and shrink."""
    inputs = [(randn(2, c, s, s, seed=c), randn(c + 2, c, 3, 3, seed=s)) for c, s in ((33, 24), (70, 12), (9, 40))]

    def products(x: Tensor, w: Tensor) -> list[Tensor]:
        return ours(F.conv2d(x, w, padding=1), x, w)

    wanted = [products(*pair) for pair in inputs]
    wrong = []

    def work(start: int) -> None:
        for k in range(start, start + 15):
            found = products(*inputs[k % 3])
            if not all(map(torch.equal, found, wanted[k % 3])):
                wrong.append(k)

    with threads(1):
        workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not wrong


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_is_seen(value: float) -> None:
    """Exactly where the sum is not finite, for every place of a pixel in its tiles."""
    w = randn(3, 2, 3, 3, seed=1)
    for row, column in itertools.product(range(5), repeat=2):
        x = randn(1, 2, 6, 6)
        x[0, 0, row, column] = value
        want = F.conv2d(x, w, padding=1).isfinite()
        assert torch.equal(ops.conv2d(x, w, padding=1).isfinite(), want) and not want.all()


def test_views() -> None:
    """Slices, steps, permutations and repeats of larger tensors, and scratch that holds something else's NaN."""
    ops.conv2d(torch.full((2, 96, 16, 16), float("nan")), randn(96, 96, 3, 3), padding=1)
    base, kernels = randn(4, 40, 24, 30), randn(40, 40, 5, 3, seed=1)
    images = [
        base[1:3, 3:30, 2:15, 4:17],
        base[:, ::3][:, :9, ::2, ::2],
        base.permute(0, 2, 1, 3)[:, :10],
        base[:1, :7, :9, :9].expand(3, 7, 9, 9),
        base[:, :1, :9, :9].expand(4, 8, 9, 9),
        base.contiguous(memory_format=LAST)[:2, 5:19],
    ]
    for x in images:
        w = kernels[2:20, : x.shape[1], 1:4]
        if w.shape[1] < x.shape[1]:
            w = kernels[:18].expand(18, 40, 5, 3)[:, :1, 1:4].expand(18, x.shape[1], 3, 3)
        dy = randn(x.shape[0], 18, *x.shape[2:], seed=2)
        for given in (dy, dy[:, :1].expand(dy.shape), dy.transpose(2, 3).contiguous().transpose(2, 3)):
            found, wanted = ours(given, x, w), torchs(given.double(), x.double(), w.double())
            for a, b in zip(found, wanted, strict=True):
                assert float((a.double() - b).abs().max()) < 1e-5 * float(b.abs().max())


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
    x, w = randn(2, 4, 8, 8), randn(4, 4, 3, 3)
    for name in ("padding", "stride", "dilation"):
        for value in ((), (1, 1, 1)):
            with pytest.raises(RuntimeError, match=f"expected {name} to be"):
                ops.conv2d(x, w, **{name: value})
    w.untyped_storage().resize_(0)  # as FSDP does with parameters between uses
    with pytest.raises(RuntimeError, match="not allocated"):
        ops.conv2d(x, w, padding=1)


def test_a_refused_allocation_leaves_nothing_behind() -> None:
    """The scratch of a layer that does not fit into memory; the next one must have its own again."""
    program = """
import resource, torch
from gan_fast import _C, ops
_C.set_winograd("always")
torch.set_num_threads(1)
x, w = torch.randn(1, 32, 16, 16), torch.randn(32, 32, 3, 3)
large = torch.randn(1, 1024, 8, 8), torch.randn(2048, 1024, 3, 3)
want = ops.conv2d(x, w, padding=1)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (20 << 20), resource.RLIM_INFINITY))
try:
    ops.conv2d(*large, padding=1)
except RuntimeError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert torch.equal(ops.conv2d(x, w, padding=1), want)
"""
    if sys.platform != "linux":
        pytest.skip("needs /proc and a limit of address space")
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "allocate" in done.stdout, done.stderr


def used(x: Tensor, w: Tensor) -> tuple[int, ...]:
    """1 or 0 for each product, output, input gradient, weight gradient: whether it is Winograd's."""
    dy = torch.zeros(x.shape[0], w.shape[0], *x.shape[2:], dtype=x.dtype)
    return (
        runs(lambda: _ours.convolution(x, w, None, *geometry()))[1],
        runs(lambda: _ours.convolution_input_gradient(dy, x, w, *geometry()))[1],
        runs(lambda: _ours.convolution_weight_gradient(dy, x, w, *geometry()))[1],
    )


def test_the_rule() -> None:
    """auto: channels and tiles enough, float32 or float64, not on the baseline's instruction set; never: none."""

    def case(channels: int, side: int, order: torch.memory_format = LAST, batch: int = 4) -> tuple[int, ...]:
        return used(randn(batch, channels, side, side, order=order), randn(channels, channels, 3, 3))

    _C.set_winograd("auto")
    with cpu_capability("avx2"), threads(2):
        assert case(24, 16) == (1, 1, 1)
        assert case(23, 16) == case(24, 14) == (0, 0, 0)  # too few channels; 196 tiles
        assert case(24, 16, FLAT) == case(63, 16, FLAT) == (1, 1, 0)
        assert case(64, 16, FLAT) == (1, 1, 1)
        assert case(24, 7, batch=16) == (1, 1, 1)
        assert case(24, 5, batch=29) == case(24, 1, batch=256) == (0, 0, 0)  # tiles mostly beyond the border
        x, w = randn(4, 24, 16, 16, order=LAST), randn(24, 24, 3, 3)
        assert used(x.double(), w.double()) == (1, 1, 1)
        with threads(11):
            assert used(x, w) == (0, 0, 0)  # 23 tiles for each thread
        assert runs(lambda: ops.conv2d(x.bfloat16(), w.bfloat16(), padding=1))[1] == 0
        with reference_mode():
            assert runs(lambda: ops.conv2d(x, w, padding=1))[1] == 0
        _C.set_winograd("never")
        assert used(x, w) == (0, 0, 0)
    _C.set_winograd("auto")
    with cpu_capability("default"):
        assert used(x, w) == (0, 0, 0)


def test_the_environment_variable() -> None:
    program = "from gan_fast import _C; print(_C.winograd_mode())"

    def ask(value: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        environment = {**os.environ, "GAN_FAST_WINOGRAD": value, "PYTHONPATH": path}
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)

    assert ask("never").stdout.strip() == "never"
    assert "GAN_FAST_WINOGRAD) is sometimes; expected one of auto, always, never" in ask("sometimes").stderr
    with pytest.raises(ValueError, match="expected one of auto, always, never"):
        _C.set_winograd("often")
