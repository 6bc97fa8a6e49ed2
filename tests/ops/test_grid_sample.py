"""grid_sample: bilinear, zeros outside, corners not aligned; against the formula, to second order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gan_fast import ops
from support.checks import check_derivatives, check_op
from support.reference_runner import agree
from support.strategies import lay_out
from support.tolerances import DTYPES


def formula(x: Tensor, grid: Tensor) -> Tensor:
    """Every pixel with its weight, max(0, 1 - distance) along each axis."""
    height, width = x.shape[2:]
    px = ((grid[..., 0] + 1) * width - 1) / 2
    py = ((grid[..., 1] + 1) * height - 1) / 2
    wx = (1 - (px[..., None] - torch.arange(width)).abs()).clamp(min=0)
    wy = (1 - (py[..., None] - torch.arange(height)).abs()).clamp(min=0)
    return torch.einsum("nchw,nijh,nijw->ncij", x, wy.to(x.dtype), wx.to(x.dtype))


def places(*shape: int, dtype: torch.dtype) -> Tensor:
    """In and around the image, in all dtypes the same, and away from the lines between pixels."""
    generator = torch.Generator().manual_seed(1)
    cells = torch.randint(-3, 9, (*shape, 2), generator=generator)
    return ((cells + 0.4) / 4 - 1).to(dtype)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_formula(dtype, layout, device):
    x = lay_out(torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).to(dtype), layout)
    wide = torch.promote_types(dtype, torch.float32)
    grid = places(2, 4, 6, dtype=wide)
    agree(
        lambda a, g: ops.grid_sample(a.to(device), g.to(device)).cpu(),
        formula,
        [x, grid],
        kind="reduced",
        value_magnitude=4.0,
        gradient_magnitude=60.0,
        output_dtype=dtype,
    )


def gradient(x: Tensor, grid: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(ops.grid_sample(x, grid).pow(3).sum(), [x, grid], create_graph=True)


def test_first_to_third_order_numerically():
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64).requires_grad_()
    grid = places(1, 2, 3, dtype=torch.float64).requires_grad_()
    check_derivatives(ops.grid_sample, [x, grid])
    check_derivatives(lambda a: ops.grid_sample(a, grid.detach()), [x])
    check_derivatives(gradient, [x, grid])


def test_nothing_is_computed_for_a_grid_without_gradient():
    """R1 through an augmentation: samplings and their adjoints."""
    x, grid = torch.randn(2, 3, 5, 5).requires_grad_(), places(2, 4, 4, dtype=torch.float32)
    with torch.profiler.profile() as profile:
        (g,) = torch.autograd.grad(ops.grid_sample(x, grid).square().sum(), x, create_graph=True)
        g.square().sum().backward()
    called = {event.name for event in profile.events()}
    assert "gan_fast::grid_sample_input_gradient" in called
    assert not called & {"gan_fast::grid_sample_grid_gradient", "aten::gather", "aten::scatter_add"}


def test_opcheck_and_layouts():
    grid = places(2, 4, 6, dtype=torch.float32)
    for layout in ("contiguous", "channels_last"):
        x = lay_out(torch.randn(2, 3, 5, 7), layout)
        last = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        assert ops.grid_sample(x, grid).is_contiguous(memory_format=last)
        check_op(torch.ops.gan_fast.grid_sample.default, [(x.requires_grad_(), grid.clone().requires_grad_())])


def test_compiled_with_its_gradient():
    def step(x: Tensor, grid: Tensor) -> Tensor:
        return ops.grid_sample(x * 2, grid)

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (2, 3):
        results = []
        for f in (compiled, step):
            x = torch.linspace(-1, 1, n * 24).view(n, 2, 3, 4).requires_grad_()
            grid = places(n, n, 5, dtype=torch.float32).requires_grad_()
            y = f(x, grid)
            results.append((y, *torch.autograd.grad(y.square().sum(), [x, grid])))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)


def test_a_narrow_image_keeps_a_wide_grid():
    """A shift by a tenth of a pixel of 512, which bfloat16 coordinates do not hold."""
    x = torch.arange(512.0).expand(1, 1, 2, 512).bfloat16()
    shift = torch.tensor([[[1.0, 0.0, 0.2 / 512], [0.0, 1.0, 0.0]]])
    grid = torch.nn.functional.affine_grid(shift, [1, 1, 2, 512], align_corners=False)
    y = ops.grid_sample(x, grid)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(
        y[..., :100].float(), (torch.arange(100.0) + 0.1).expand(1, 1, 2, 100), rtol=2**-8, atol=0.01
    )


def test_nothing_and_one_pixel():
    assert ops.grid_sample(torch.zeros(0, 3, 4, 4), torch.zeros(0, 2, 2, 2)).shape == (0, 3, 2, 2)
    torch.testing.assert_close(ops.grid_sample(torch.full((1, 1, 1, 1), 3.0), torch.zeros(1, 1, 1, 2)).item(), 3.0)


@pytest.mark.parametrize(
    ("x", "grid", "error"),
    [
        (torch.zeros(1, 2, 3), torch.zeros(1, 2, 2, 2), ValueError),
        (torch.zeros(1, 2, 3, 3), torch.zeros(2, 2, 2, 2), ValueError),
        (torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 2, 3), ValueError),
        (torch.zeros(1, 2, 3, 3).long(), torch.zeros(1, 2, 2, 2), TypeError),
    ],
)
def test_refused(x, grid, error):
    with pytest.raises(error, match=r"grid_sample got .* expected"):
        ops.grid_sample(x, grid)
