"""Where the time of a modulated convolution and of a StyleGAN2 step goes: Python before the launches, or the card.

    python benchmarks/profile_cuda.py                              everything; some minutes on a card
    python benchmarks/profile_cuda.py --parts modulated,rule       some of: modulated, rule, layers, step
    python benchmarks/profile_cuda.py --shape 8x256x128x128        modulated: other images than the two of the benchmark

For each job: `enqueue`, how long Python takes to queue it while the card is busy with the ones before; `total`, the
time for a job when many are queued. Where the two are equal, Python is what the card waits for, and the kernel table
(`torch.profiler`, sums of a job) says how much of the total the card needs. `alone` is one job with a wait after it.

    modulated    forward and backward of `ops.modulated_conv2d`, by each setting of GAN_FAST_MODULATED_CONV, beside the
                 formulations in plain PyTorch and the three convolutions alone, without and with cudnn.benchmark
    rule         what `gan_fast.triton.rule` has measured, and so what serves
    layers       the four products of the layers of `gan_fast.triton.report`, Triton kernel and shared convolution
    step         a StyleGAN2 step at 256x256 (`bench/cuda.py`), ours, eager and reference, and its kernels

The times of `modulated` on another device (`--device cpu`) are no benchmark; they show that the tool works.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gan_fast import reference_mode
from gan_fast.bench import cuda, modulated_conv2d, stylegan2
from gan_fast.bench.plain_stylegan2 import composed
from gan_fast.triton import rule

Job = Callable[[], Any]
PARTS = ("modulated", "rule", "layers", "step")
DTYPES = (torch.bfloat16, torch.float32)
LAST = torch.channels_last


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def queued(job: Job, device: torch.device, seconds: float) -> str:
    """Enqueue and total time of a job when many are in flight, and the time of one alone."""

    def alone() -> float:
        wait(device)
        start = time.perf_counter()
        job()
        wait(device)
        return time.perf_counter() - start

    for _ in range(3):  # compiles, measures what the rule has to measure, fills the allocator
        job()
    single = sorted(alone() for _ in range(5))[2]
    jobs = max(2, min(200, int(seconds / single)))
    start = time.perf_counter()
    for _ in range(jobs):
        job()
    queue = time.perf_counter() - start
    wait(device)
    total = time.perf_counter() - start
    return f"enqueue {queue / jobs * 1e6:8.0f} us   total {total / jobs * 1e6:8.0f} us   alone {single * 1e6:8.0f} us"


def kernels(job: Job, device: torch.device, rows: int = 24, jobs: int = 3) -> list[str]:
    """The kernels of a job (on the CPU: its ops) by the time they take together."""
    on_card = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_card else [])
    job()
    wait(device)
    with profile(activities=activities) as recorded:
        for _ in range(jobs):
            job()
        wait(device)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in recorded.events() or []:
        if on_card == (event.device_type == torch.autograd.DeviceType.CUDA):
            found = sums[event.name[:100]]
            found[0] += event.self_device_time_total if on_card else event.self_cpu_time_total
            found[1] += 1
    total = sum(microseconds for microseconds, _ in sums.values()) / jobs
    count = sum(times for _, times in sums.values()) / jobs
    lines = [f"    {total:9.0f} us in {count:.0f} {'kernels and copies' if on_card else 'ops'}"]
    for name, (microseconds, times) in sorted(sums.items(), key=lambda item: -item[1][0])[:rows]:
        lines.append(f"    {microseconds / jobs:9.1f} us {times / jobs:6.1f} x {name}")
    return lines


@contextlib.contextmanager
def setting(mode: str) -> Iterator[None]:
    """GAN_FAST_MODULATED_CONV for a while."""
    before = os.environ.get(rule.VARIABLE)
    os.environ[rule.VARIABLE] = mode
    try:
        yield
    finally:
        if before is None:
            del os.environ[rule.VARIABLE]
        else:
            os.environ[rule.VARIABLE] = before


@contextlib.contextmanager
def cudnn_benchmark(on: bool) -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def modulated(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, seconds: float) -> None:
    """Prints one shape."""
    n, c = shape[:2]

    def leaves(order: torch.memory_format) -> tuple[list[torch.Tensor], torch.Tensor]:
        x = torch.randn(shape, device=device).to(dtype).to(memory_format=order).requires_grad_()
        w = torch.randn(c, c, 3, 3, device=device).to(memory_format=order).requires_grad_()
        s = (1 + 0.3 * torch.randn(n, c, device=device)).requires_grad_()
        return [x, w, s], torch.randn(shape, device=device).to(dtype).to(memory_format=order)

    tall, tall_cotangent = leaves(LAST)
    flat, flat_cotangent = leaves(torch.contiguous_format)
    ours = modulated_conv2d._job(modulated_conv2d.ours, tall, tall_cotangent)
    plain = {
        "eager scaled": modulated_conv2d._job(modulated_conv2d.scaled, tall, tall_cotangent),
        "eager grouped": modulated_conv2d._job(modulated_conv2d.grouped, flat, flat_cotangent),
        "convolutions alone": modulated_conv2d._convolution_alone(tall[0], tall[1], tall_cotangent),
    }
    for on in (False, True):
        print(f"== modulated {shape} {dtype}, cudnn.benchmark={on}", flush=True)
        with cudnn_benchmark(on):
            for name, job in plain.items():
                print(f"{name:20s} {queued(job, device, seconds)}", flush=True)
            for mode in rule.MODES:
                with setting(mode):
                    print(f"{'ours, ' + mode:20s} {queued(ours, device, seconds)}", flush=True)
                    if not on:
                        print("\n".join(kernels(ours, device)), flush=True)
            if not on:
                print("eager scaled", *kernels(plain["eager scaled"], device, rows=12), sep="\n", flush=True)


def choices() -> None:
    """Prints what serves."""
    print("== rule")
    for choice in rule.choices():
        times = choice.times
        print(f"{times.faster:7s} triton {times.triton:9.1f} us   shared {times.shared:9.1f} us   {choice.key}")


def layers(device: torch.device, seconds: float) -> None:
    """Prints every product of the report's layers."""
    from gan_fast.triton import report
    from gan_fast.triton.plans import Target

    print("== layers, on the card's clock: microseconds of the Triton kernel and of the shared convolution")
    for layer in report.LAYERS:
        for job in report.jobs(layer, str(device), Target.of(device)):
            times = rule.measure(job.kernel, job.shared)
            print(
                f"{layer.name:32s} {job.product:18s} triton {times.triton:9.1f}   shared {times.shared:9.1f}   "
                f"triton queued: {queued(job.kernel, device, seconds / 4)}",
                flush=True,
            )


def step(device: torch.device, seconds: float) -> None:
    """Prints the StyleGAN2 step."""
    size = stylegan2.Setting(**cuda.AUTO_256)
    jobs: dict[str, Callable[[], Job]] = {
        "ours": lambda: stylegan2.step("step", size, device, torch.bfloat16),
        "eager": lambda: stylegan2.step("step", size, device, torch.bfloat16, composed),
        "reference": lambda: stylegan2.step(
            "step", size, device, torch.bfloat16, reference_mode, memory_format=torch.contiguous_format
        ),
    }
    for name, make in jobs.items():
        job = make()
        print(f"== StyleGAN2 step, 256x256, bfloat16: {name}")
        print(queued(job, device, 5 * seconds), flush=True)
        print("\n".join(kernels(job, device, rows=45 if name == "ours" else 20, jobs=1)), flush=True)


def _shape(text: str) -> tuple[int, int, int, int]:
    n, c, h, w = (int(size) for size in text.split("x"))
    return n, c, h, w


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated, of " + ", ".join(PARTS))
    parser.add_argument("--shape", type=_shape, action="append", help="NxCxHxW, for `modulated`; may be repeated")
    parser.add_argument("--seconds", type=float, default=0.2, help="how long a job is queued (a step: five times that)")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    options = parser.parse_args(argv)
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    device = options.device
    if device.type == "cuda":
        if not torch.cuda.is_available():
            parser.error("torch finds no NVIDIA card here; --device cpu --parts modulated tries the tool without one")
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        print(torch.cuda.get_device_name(device), "torch", torch.__version__, flush=True)
    elif parts != ["modulated"]:
        parser.error(f"on {device} only --parts modulated runs: the others ask a card")
    if "modulated" in parts:
        for shape in options.shape or cuda.CONVOLVED_SHAPES:
            for dtype in DTYPES:
                modulated(shape, dtype, device, options.seconds)
    if "rule" in parts:
        choices()
    if "layers" in parts:
        layers(device, options.seconds)
    if "step" in parts:
        step(device, options.seconds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
