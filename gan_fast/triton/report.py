"""The Triton kernels as compiled for sm_90, without a card, and what they should reach on one.

    python -m gan_fast.triton.report              prints, and writes benchmarks/results/triton_sm90.md
    python -m gan_fast.triton.report --measure    on a card: the same with measured times beside the expected ones

Shapes are the convolutions of a StyleGAN2 generator at 256x256 (channel base 32768), batch 8.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from torch import Tensor

from gan_fast.triton import roofline
from gan_fast.triton.ahead_of_time import Compiled, compile_plan
from gan_fast.triton.plans import Plan, Target, epilogue_gradient, product, weight_gradient

BATCH = 8
LRELU = (2, 0.2, 2**0.5, 256.0)
RESULT = Path("benchmarks/results/triton_sm90.md")


@dataclass(frozen=True)
class Layer:
    """A convolution of the generator; toRGB has no demodulation, noise or activation."""

    inputs: int
    outputs: int
    size: int
    kernel: int = 3
    dtype: torch.dtype = torch.bfloat16

    @property
    def name(self) -> str:
        kind = {torch.bfloat16: "bf16", torch.float32: "tf32"}[self.dtype]
        return f"{self.kernel}x{self.kernel} {self.inputs}->{self.outputs} {self.size}x{self.size} {kind}"


LAYERS = (
    Layer(512, 512, 16),
    Layer(512, 512, 32),
    Layer(512, 512, 64),
    Layer(256, 256, 128),
    Layer(128, 128, 256),
    Layer(128, 3, 256, kernel=1),
    Layer(256, 256, 64, dtype=torch.float32),
)


@dataclass(frozen=True)
class Job:
    """One product of a layer: its plan, and how to run it and its rival on tensors of a card."""

    product: str
    plan: Plan
    kernel: Callable[[], object]
    shared: Callable[[], object]


def jobs(layer: Layer, device: str, target: Target) -> Iterator[Job]:
    """The four launches of a layer's forward and backward."""
    from gan_fast.reference import modulated_convolution as reference
    from gan_fast.triton import launch, shared

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    def image(channels: int) -> Tensor:
        x = draw(BATCH, channels, layer.size, layer.size, dtype=layer.dtype)
        return x.contiguous(memory_format=torch.channels_last)

    x, dz, k = image(layer.inputs), image(layer.outputs), layer.kernel
    w = draw(layer.outputs, layer.inputs, k, k, dtype=layer.dtype).contiguous(memory_format=torch.channels_last)
    s, bias = draw(BATCH, layer.inputs), draw(layer.outputs)
    full = k > 1
    d = draw(BATCH, layer.outputs).abs() + 0.5 if full else None
    noise = draw(BATCH, 1, layer.size, layer.size) if full else None
    act, alpha, gain, clamp = LRELU if full else (0, 0.0, 1.0, 256.0)
    p = k // 2
    forward = (x, w, s, d, noise, bias, p, act, alpha, gain, clamp)
    yield Job(
        "forward",
        product(x, w, s, d, target, padding=p, noise=noise, bias=bias, act=act, alpha=alpha, gain=gain, clamp=clamp),
        lambda: launch.forward(*forward),
        lambda: shared.forward(*forward),
    )
    yield Job(
        "input gradient",
        product(dz, w, d, s, target, padding=p, transposed=True, other=x),
        lambda: launch.input_gradient(dz, w, s, d, x, p),
        lambda: shared.input_gradient(dz, w, s, d, x, p),
    )
    yield Job(
        "weight gradient",
        weight_gradient(dz, x, s, d, target, size=k, padding=p),
        lambda: launch.weight_gradient(dz, x, s, d, k, p),
        lambda: shared.weight_gradient(dz, x, s, d, k, p),
    )
    yield Job(
        "epilogue gradient",
        epilogue_gradient(dz, dz, noise, target, act=act, alpha=alpha, gain=gain, clamp=clamp),
        lambda: launch.epilogue_gradient(dz, dz, noise, act, alpha, gain, clamp),
        lambda: reference.epilogue_gradient(dz, dz, noise, act, alpha, gain, clamp),
    )


HEADS = (
    "layer", "product", "tile", "blocks", "fit", "registers", "shared KB", "spills", "instruction",
    "bytes an output", "FLOP a byte", "bound by", "roofline us", "expected us", "share",
)  # fmt: skip
MEASURED = ("measured us", "share measured", "cuDNN's us")


def row(layer: Layer, job: Job, done: Compiled) -> list[str]:
    """One line of the table."""
    e, tile = roofline.estimate(job.plan, done), job.plan.tile
    return [
        layer.name,
        job.product,
        f"{tile.m}x{tile.n}x{tile.k}, {tile.warps} warps, {tile.stages} stages",
        f"{e.blocks:,}",
        str(e.resident),
        str(done.registers),
        f"{done.shared_bytes / 1024:.0f}",
        str(done.local_instructions),
        done.product,
        f"{e.bytes / e.outputs:.2f}",
        f"{e.intensity:.0f}",
        e.bound,
        f"{e.roofline * 1e6:.1f}",
        f"{e.expected * 1e6:.1f}",
        f"{e.share:.0%}",
    ]


def rows(measure: bool) -> list[list[str]]:
    """The table. Measuring runs every product and the shared convolution in its place, on the card."""
    from gan_fast.triton import rule

    target = Target.of(torch.device("cuda")) if measure else Target()
    capability = 10 * target.capability[0] + target.capability[1]
    table = []
    for layer in LAYERS:
        for job in jobs(layer, "cuda" if measure else "meta", target):
            done = compile_plan(job.plan, capability)
            line = row(layer, job, done)
            if measure:
                times = rule.measure(job.kernel, job.shared)
                share = roofline.estimate(job.plan, done).roofline / (times.triton * 1e-6)
                line += [f"{times.triton:.1f}", f"{share:.0%}", f"{times.shared:.1f}"]
            table.append(line)
    return table


def markdown(table: Sequence[Sequence[str]], measure: bool) -> str:
    """The report as a page."""
    heads = (*HEADS, *(MEASURED if measure else ()))
    r = roofline
    where = f"Measured on {torch.cuda.get_device_name()}." if measure else "No card was used: nothing here is measured."
    lines = [
        "# Triton kernels of modulated convolution on sm_90",
        "",
        f"{where} Compiled by Triton {triton.__version__}; registers, shared memory and spills",
        "(loads and stores to local memory) are read from the cubin, instructions from the PTX. Batch 8.",
        "",
        "Roofline: every tensor once through memory, every product once, at the peak of an H100 SXM5: "
        f"{r.PEAK[torch.bfloat16] / 1e12:.0f} TFLOP/s in",
        f"bfloat16, {r.PEAK[torch.float32] / 1e12:.0f} in tf32, {r.MEMORY / 1e12:.2f} TB/s; they meet at "
        f"{r.PEAK[torch.bfloat16] / r.MEMORY:.0f} FLOP a byte. Expected: the model of `gan_fast/triton/roofline.py`,",
        f"with {r.SUSTAINED:.0%} of that peak sustained, {r.L2 / 1e12:.1f} TB/s from the L2 cache, "
        f"{r.COPY_SHARE:.0%} of the memory's bandwidth and",
        f"{r.SCALING} instructions to scale a number, all four assumed; whole tiles and whole waves of blocks count.",
        "`fit` is how many blocks a multiprocessor holds.",
        "`python -m gan_fast.triton.report --measure` adds measured times.",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
        *("| " + " | ".join(line) + " |" for line in table),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report and keeps it."""
    parser = argparse.ArgumentParser(prog="python -m gan_fast.triton.report", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="time every product on the card")
    parser.add_argument("--out", type=Path, default=RESULT, help=f"where to write it (default: {RESULT})")
    options = parser.parse_args(argv)
    if options.measure and not torch.cuda.is_available():
        parser.error("--measure needs an NVIDIA card, and torch finds none")
    text = markdown(rows(options.measure), options.measure)
    print(text, end="")
    if options.out != RESULT or RESULT.parent.is_dir():
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
