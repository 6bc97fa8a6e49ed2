"""What the Triton kernels are tried on, by the interpreter and on a card: odd sizes against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gan_fast.reference import modulated_convolution as reference
from support.tolerances import assert_close

Inputs = dict[str, Tensor | None]


@dataclass(frozen=True)
class Case:
    """[n, i, h, w] images, o output channels, k x k kernels; which of the scales there are."""

    n: int
    i: int
    o: int
    h: int
    w: int
    k: int
    padding: int
    scales: str = "sd"
    dtype: str = "float32"
    act: int = 2
    clamp: float = -1.0
    shared_noise: bool = False

    @property
    def name(self) -> str:
        return f"{self.n}x{self.i}x{self.h}x{self.w}-o{self.o}-k{self.k}p{self.padding}-{self.scales}-{self.dtype}"


SHAPES = (
    Case(2, 5, 7, 6, 9, 3, 1),  # nothing divides anything
    Case(2, 6, 17, 5, 4, 3, 1, "s", act=1, clamp=3.0),  # no demodulation, as in toRGB
    Case(1, 33, 18, 5, 5, 1, 0, "d", clamp=2.5, shared_noise=True),  # one sample, 1x1
    Case(3, 16, 24, 3, 2, 3, 2, "none", act=0),  # StyleGAN3 pads by k - 1
    Case(1, 70, 3, 7, 6, 3, 0),  # two steps of the sum; no padding
    Case(5, 3, 2, 1, 1, 3, 1, shared_noise=True),  # images of one pixel
    Case(3, 4, 3, 47, 46, 1, 0, "sd"),  # weight gradient split over samples and inside them
)
CASES = [*SHAPES, *(replace(shape, dtype="bfloat16") for shape in SHAPES[:-1])]
CASES += [replace(shape, dtype="float16") for shape in SHAPES[:2]]


def inputs(case: Case, device: str | torch.device = "cpu", order: torch.memory_format = torch.channels_last) -> Inputs:
    """Random tensors of a case."""
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, case.dtype)

    def draw(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(kind).to(device)

    height, width = case.h + 2 * case.padding - case.k + 1, case.w + 2 * case.padding - case.k + 1
    styles, norms = draw(case.n, case.i, kind=torch.float32), draw(case.n, case.o, kind=torch.float32).abs() + 0.5
    return {
        "x": draw(case.n, case.i, case.h, case.w).contiguous(memory_format=order),
        "w": draw(case.o, case.i, case.k, case.k),
        "s": styles if "s" in case.scales else None,
        "d": norms if "d" in case.scales else None,
        "noise": draw(1 if case.shared_noise else case.n, 1, height, width),
        "bias": draw(case.o, kind=torch.float32),
        "dy": draw(case.n, case.o, height, width).contiguous(memory_format=order),
    }


def _exact(t: Inputs) -> Inputs:
    return {name: None if v is None else v.double().cpu() for name, v in t.items()}


def _size(t: Inputs) -> Inputs:
    return {name: None if v is None else v.abs() for name, v in t.items()}


def compare(case: Case, implementation: Any, t: Inputs, factor: float = 1.0) -> Iterator[str]:
    """Runs the four ops of a module (`launch`, `serve`, `shared`) beside the reference; yields what was compared.

    Errors are judged by the sum of absolute terms, which the reference makes of absolute values. Narrow types are
    rounded twice, s x and the result, half an ulp each; `factor` is for a rounding that is not to nearest.
    """
    e, size = _exact(t), _size(_exact(t))
    numbers = (case.padding, case.act, 0.2, 1.3, case.clamp)
    epilogue = numbers[1:]
    names = ("x", "w", "s", "d", "noise", "bias")

    def check(got: Tensor, truth: Tensor, magnitude: Tensor | float, what: str) -> str:
        assert_close(got, truth, kind="reduced", magnitude=magnitude, what=f"{what} of {case.name}", factor=factor)
        return what

    y = implementation.forward(*(t[n] for n in names), *numbers)
    largest = reference.modulated_convolution(*(size[n] for n in names), case.padding, 0, 0.0, 1.3, -1.0)
    yield check(y, reference.modulated_convolution(*(e[n] for n in names), *numbers), largest, "y")

    dx, ds = implementation.input_gradient(t["dy"], t["w"], t["s"], t["d"], t["x"], case.padding)
    true_dx, true_ds = reference.input_gradient(e["dy"], e["w"], e["s"], e["d"], e["x"], case.padding)
    most_dx, most_ds = reference.input_gradient(size["dy"], size["w"], size["s"], size["d"], size["x"], case.padding)
    yield check(dx, true_dx, most_dx, "dx")
    # float32 as ds is, it is made of d dz in the storage type
    coarse = torch.finfo(t["x"].dtype).eps / torch.finfo(torch.float32).eps
    yield check(ds, true_ds, most_ds * (1 if coarse == 1 else coarse / 64), "ds")
    bare, none = implementation.input_gradient(t["dy"], t["w"], t["s"], t["d"], None, case.padding)
    assert none.numel() == 0
    yield check(bare, true_dx, most_dx, "dx alone")

    dw = implementation.weight_gradient(t["dy"], t["x"], t["s"], t["d"], case.k, case.padding)
    true_dw = reference.weight_gradient(e["dy"], e["x"], e["s"], e["d"], case.k, case.padding)
    most_dw = reference.weight_gradient(size["dy"], size["x"], size["s"], size["d"], case.k, case.padding)
    yield check(dw, true_dw, most_dw, "dw")

    results = implementation.epilogue_gradient(t["dy"], y, t["noise"], *epilogue)
    exact_y = y.double().cpu()
    truths = reference.epilogue_gradient(e["dy"], exact_y, e["noise"], *epilogue)
    # the same without slopes, clamp and signs; the products are a difference, so their terms are added
    dz, sums, most = reference.epilogue_gradient(size["dy"], exact_y.abs(), -size["noise"], 0, 0.0, 1.3, -1.0)
    for got, truth, magnitude, what in zip(results, truths, (dz, sums, most), ("dz", "sums", "products"), strict=True):
        yield check(got, truth, magnitude, what)
