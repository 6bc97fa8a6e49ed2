"""`ops.conv2d_resample`: every order of steps against the definition, to second order."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import ops, reference_mode
from gan_fast.ops.conv2d_resample import layout
from support.checks import check_derivatives
from support.kernels import needs_kernels
from support.reference_runner import derivatives, poisoned_memory
from support.tolerances import DTYPES, assert_close

pytestmark = needs_kernels
FORMATS = (torch.contiguous_format, torch.channels_last)


def x(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def padded(f: Tensor | None, up: int, down: int, padding) -> list[int]:
    """[x0, x1, y0, y1] with what the filter takes, half before and half after, the odd one before."""
    px, py = ([padding] * 2, [padding] * 2) if isinstance(padding, int) else (padding[:2], padding[2:])
    out = []
    for (before, after), taps in ((px, 1 if f is None else f.shape[-1]), (py, 1 if f is None else f.shape[0])):
        if up > 1:
            before, after = before + (taps + up - 1) // 2, after + (taps - up) // 2
        if down > 1:
            before, after = before + (taps - down + 1) // 2, after + (taps - down) // 2
        out += [before, after]
    return out


def definition(images, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False) -> Tensor:
    """Zero-insert, pad, filter, convolve, filter, keep every `down`-th: step by step, nothing exchanged."""

    def low_pass(u: Tensor, gain: float) -> Tensor:
        if f is None:
            return u * gain
        h = f.to(u.dtype)
        h = h if h.dim() == 2 else torch.outer(h, h)
        h = (h if flip_filter else h.flip([0, 1])) * gain
        return F.conv2d(u, h.expand(u.shape[1], 1, *h.shape), groups=u.shape[1])

    n, c, height, width = images.shape
    u = images.new_zeros(n, c, height * up, width * up)
    u[:, :, ::up, ::up] = images
    u = F.pad(u, padded(f, up, down, padding))
    u = low_pass(u, up * up) if up > 1 else u
    u = F.conv2d(u, w if flip_weight else w.flip([2, 3]), groups=groups)
    return (low_pass(u, 1.0) if down > 1 else u)[:, :, ::down, ::down]


FILTERS = {"none": None, "square": ops.setup_filter([1, 3, 3, 1]), "oblong": x(3, 4).float(), "taps": x(3).float()}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (2, 2)], ids=str)
def test_every_order_is_the_definition(factors, name):
    """Values and both gradients: kernels 1x1, 3x3 and 5x3, both flips, one-sided padding, cropping, groups."""
    f = FILTERS[name]
    kernels = ((1, 1), (3, 3), (5, 3)) if name == "square" else ((1, 1), (3, 3))
    for kernel, flip, padding in itertools.product(kernels, (False, True), (1, [2, 1, 0, 3], [-1, 2, 1, -1])):
        images, w, groups = x(2, 4, 7, 9), x(6, 2, *kernel, seed=1), 2
        arguments = {"up": factors[0], "down": factors[1], "padding": padding, "groups": groups, "flip_weight": flip}
        arguments["flip_filter"] = not flip if padding == 1 else flip
        want = derivatives(lambda a, b: definition(a, b, f, **arguments), [images, w], second=False)  # noqa: B023
        for context in (reference_mode, poisoned_memory):
            with context():
                got = derivatives(lambda a, b: ops.conv2d_resample(a, b, f, **arguments), [images, w], second=False)  # noqa: B023
            for a, b in zip((*got.values, *got.gradients), (*want.values, *want.gradients), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("memory_format", FORMATS, ids=("contiguous", "channels_last"))
@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (1, 2), (2, 2)], ids=str)
def test_derivatives(factors, memory_format):
    for kernel in (1, 3):
        images = x(1, 2, 3, 4).contiguous(memory_format=memory_format).requires_grad_()
        w = x(2, 2, kernel, kernel, seed=1).requires_grad_()
        up, down = factors
        check_derivatives(
            lambda a, b: ops.conv2d_resample(a, b, FILTERS["square"], up, down, kernel // 2, flip_weight=up == 1),  # noqa: B023
            (images, w),
        )


@pytest.mark.parametrize("memory_format", FORMATS, ids=("contiguous", "channels_last"))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_keeps_its_layout(dtype, memory_format, device, monkeypatch):
    """Images of one channel and of one pixel lie both ways at once: their strides say which is meant."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    f = FILTERS["square"]
    for shape, outputs in (((3, 5, 7, 6), 9), ((2, 1, 6, 6), 4), ((2, 3, 1, 1), 4), ((1, 16, 5, 4), 1)):
        images = x(*shape, dtype=dtype).contiguous(memory_format=memory_format).to(device)
        images = images.to(memory_format=memory_format) if shape[1] > 1 else images
        w = (x(outputs, shape[1], 3, 3, seed=1) / (3 * shape[1] ** 0.5)).to(device, dtype)
        for up, down in ((1, 1), (2, 1), (1, 2))[: 3 if shape[2] > 1 else 2]:
            for weight in (w, w.contiguous(memory_format=torch.channels_last)):
                y = ops.conv2d_resample(images, weight, f.to(device), up, down, 1)
                want = definition(images.double(), w.double(), f.to(device), up, down, 1)
                # between two steps the image is rounded once more
                assert_close(y, want, kind="reduced", magnitude=4 * want.abs().max(), what=f"up {up} down {down}")
                if y.shape[1] > 1 and y.shape[2] > 1:
                    assert y.is_contiguous(memory_format=layout(images))
        if shape[1] > 1 and shape[2] > 1:
            assert layout(images) == memory_format


def test_no_images():
    w = x(4, 3, 3, 3).requires_grad_()
    for up, down in ((1, 1), (2, 1), (1, 2)):
        y = ops.conv2d_resample(x(0, 3, 6, 6).requires_grad_(), w, FILTERS["square"], up, down, 1)
        assert y.shape == (0, 4, 6 * up // down, 6 * up // down)
        (dw,) = torch.autograd.grad(y.sum(), w)
        assert not dw.any()


def test_compiled_whole_at_any_size():
    def function(a: Tensor, w: Tensor, f: Tensor) -> Tensor:
        return ops.conv2d_resample(ops.conv2d_resample(a, w, f, 2, 1, 1, flip_weight=False), w, f, 1, 2, 1)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 4, 6, 5), (3, 4, 9, 8)):
        inputs = [x(*shape), x(4, 4, 3, 3, seed=1)]
        f = FILTERS["square"]
        got = derivatives(lambda a, b: compiled(a, b, f), inputs, second=False, poisoned=False)  # noqa: B023
        want = derivatives(lambda a, b: function(a, b, f), inputs, second=False)  # noqa: B023
        for a, b in zip((*got.values, *got.gradients), (*want.values, *want.gradients), strict=True):
            torch.testing.assert_close(a, b)


def test_autocast_casts_as_for_a_convolution():
    images, w = x(2, 3, 6, 6).float(), x(4, 3, 3, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        got = [ops.conv2d_resample(images, w, FILTERS["square"], *factors, 1) for factors in ((1, 1), (2, 1), (1, 2))]
    for y, factors in zip(got, ((1, 1), (2, 1), (1, 2)), strict=True):
        want = ops.conv2d_resample(images.bfloat16(), w.bfloat16(), FILTERS["square"], *factors, 1)
        assert y.dtype == torch.bfloat16 and torch.equal(y, want)


def test_transforms():
    images, w, f = x(2, 3, 4, 5), x(4, 3, 3, 3), FILTERS["square"]
    tangent = x(2, 3, 4, 5, seed=3)
    _, got = torch.func.jvp(lambda i: ops.conv2d_resample(i, w, f, 2, 1, 1), (images,), (tangent,))
    torch.testing.assert_close(got, ops.conv2d_resample(tangent, w, f, 2, 1, 1))


def test_errors():
    for wrong, message in (
        ({"x": x(3, 4, 4)}, r"\[N, I, H, W\]"),
        ({"w": x(4, 2, 3, 3)}, "3 channels, but the weight"),
        ({"up": 0}, "up is 0"),
        ({"down": 1.5}, "down is 1.5"),
        ({"padding": [1, 2, 3]}, "padding is"),
    ):
        with pytest.raises(ValueError, match=message):
            ops.conv2d_resample(**({"x": x(2, 3, 6, 6), "w": x(4, 3, 3, 3)} | wrong))
