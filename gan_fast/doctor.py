"""gan-fast doctor: what was built, what serves each op on each device and why; `--check` tries it all."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import gan_fast
from gan_fast import _C, _build, losses, nvrtc, ops, penalties, triton
from gan_fast.reference.bias_act import ACTIVATIONS
from gan_fast.triton import rule

# Every op, with the folder of csrc/ that holds it: the name of its device code.
OPS = {
    "adversarial_loss": "adversarial_loss",
    "adversarial_terms": "adversarial_loss",
    "adversarial_loss_backward": "adversarial_loss",
    "bias_act": "bias_act",
    "bias_act_backward": "bias_act",
    "bias_act_backward_": "bias_act",
    "bias_act_double_backward": "bias_act",
    "binary_cross_entropy": "binary_cross_entropy",
    "binary_cross_entropy_backward": "binary_cross_entropy",
    "softplus": "softplus",
    "softplus_backward": "softplus",
    "l1_distance": "l1_distance",
    "l1_distance_backward": "l1_distance",
    "gradient_penalty": "gradient_penalty",
    "gradient_penalty_backward": "gradient_penalty",
    "filtered_lrelu": "filtered_lrelu",
    "filtered_lrelu_backward": "filtered_lrelu",
    "filtered_lrelu_tangent": "filtered_lrelu",
    "upfirdn2d": "upfirdn2d",
}

# One family, with kernels of Triton's on CUDA and Winograd's on the CPU: each product runs those or the shared
# convolution, as measured.
MODULATED = (
    "modulated_convolution",
    "modulated_convolution_input_gradient",
    "modulated_convolution_weight_gradient",
    "modulated_convolution_epilogue_gradient",
)

# Layers whose values torch computes on every device, and whose gradients to any order are put together in C++.
LEAN = ("convolution", "linear", "leaky_relu", "avg_pool", "max_pool", "grid_sample")


@dataclasses.dataclass(frozen=True)
class Serving:
    """One cell of the table: what runs an op on a device, and why that."""

    op: str
    device: str
    kernel: str
    reason: str


def serving() -> list[Serving]:
    """Which kernel serves each op on the CPU, on CUDA and on any other device."""
    capability = _C.cpu_capability()
    forced = os.environ.get("GAN_FAST_CPU_CAPABILITY")
    cpu_reason = f"GAN_FAST_CPU_CAPABILITY={forced}" if forced else "the widest this processor and this build have"
    info = _C.cuda_info()
    rows = []
    for op, source in OPS.items():
        name = f"gan_fast::{op}"
        if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"):
            rows.append(Serving(op, "cpu", f"C++, {capability}", cpu_reason))
        else:
            rows.append(Serving(op, "cpu", "reference", "no CPU kernel is registered"))
        rows.append(Serving(op, "cuda", *_cuda(name, source, info)))
        rows.append(Serving(op, "other", "reference", "kernels are for CPU and CUDA; plain PyTorch elsewhere"))
    for op in MODULATED:
        rows.append(Serving(op, "cpu", *_layers(capability)))
        rows.append(Serving(op, "cuda", *_modulated()))
        rows.append(Serving(op, "other", "shared convolution", "kernels are for CUDA; plain PyTorch elsewhere"))
    rows += [Serving(op, "any", "torch's own products", "gan_fast is the gradients around them") for op in LEAN]
    rows.append(Serving("convolution, 3x3", "cpu", *_winograd(capability)))
    rows.append(Serving("conv2d_resample", "any", "composed", "convolution and upfirdn2d in the cheapest order"))
    served = (
        "one shared convolution between two passes of bias_act; what modulated_convolution has kernels for is that op"
    )
    rows.append(Serving("modulated_conv2d", "cpu", "composed", served))
    return rows


def _cuda(name: str, source: str, info: dict[str, Any]) -> tuple[str, str]:
    if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"):
        return "reference", "no CUDA kernel is registered"
    embedded = info["kernels"].get(source, {}).get("fatbin_bytes", 0)
    if not torch.cuda.is_available():
        ready = f"embedded for {info['archs']}" if embedded else "would be compiled at first use (NVRTC)"
        return "CUDA C++", f"no card here; {ready}"
    served = [s for s in info["served"] if s[0] == source]
    if served:
        _, _, arch, by = served[0]
        return "CUDA C++", f"loaded for sm_{arch} from {by}"
    return (
        "CUDA C++",
        f"embedded for {info['archs']}" if embedded else "compiled at first use (NVRTC): built without nvcc",
    )


def _winograd(capability: str) -> tuple[str, str]:
    """What runs 3x3 convolutions of the CPU, and why."""
    mode = _C.winograd_mode()
    if mode == "never":
        return "torch's own products", "GAN_FAST_WINOGRAD=never"
    if mode == "always":
        return f"Winograd, C++, {capability}", "GAN_FAST_WINOGRAD=always: stride 1, float32 and float64"
    if capability == "default":
        return "torch's own products", "Winograd's kernels want AVX2"
    return (
        f"Winograd, C++, {capability}",
        "stride 1, float32 and float64, 24 channels and 256 tiles or more, as measured; else torch's",
    )


def _layers(capability: str) -> tuple[str, str]:
    """What runs modulated convolutions of the CPU as one op, and why."""
    mode, last, flat = _C.winograd_mode(), _C.winograd_layer_limits(True, True), _C.winograd_layer_limits(True, False)
    shared = "torch's, between two passes"
    if mode == "never":
        return "shared convolution", f"{shared}: GAN_FAST_WINOGRAD=never"
    if mode == "always":
        return f"Winograd, C++, {capability}", "GAN_FAST_WINOGRAD=always: 3x3, not in float16"
    if last is None or flat is None:
        return "shared convolution", f"{shared}: the kernels are for bfloat16 with AVX512_BF16 and without AMX"
    return (
        f"Winograd, C++, {capability}",
        f"3x3 in bfloat16, {last[0]} channels ({flat[0]} contiguous) and {last[1]} tiles or more, as measured",
    )


def _modulated() -> tuple[str, str]:
    """What runs the products of modulated convolution on the first card, and why."""
    asked = rule.mode()
    if asked != "auto":
        return {"triton": "Triton", "shared": "shared convolution"}[asked], f"{rule.VARIABLE}={asked}"
    reason = triton.why_not(torch.device("cuda:0"))
    if reason is None or not torch.cuda.is_available():
        here = "" if reason is None else f"; {reason}"
        return "Triton or cuDNN", f"the faster for each shape, measured at first use and remembered{here}"
    return "shared convolution", f"Triton's kernels cannot run: {reason}"


def modulated_choices() -> list[tuple[str, ...]]:
    """What was measured of modulated convolution: card, class of calls, both times, the faster."""
    return [(c.card, c.key, f"{c.times.triton:.1f}", f"{c.times.shared:.1f}", c.times.faster) for c in rule.choices()]


def versions() -> dict[str, str]:
    """What is installed, as text."""
    built = json.loads((_build.PACKAGE / "_built_for.json").read_text(encoding="utf-8"))
    rows = {
        "gan_fast": f"{gan_fast.__version__} in {_build.PACKAGE}",
        "built for": ", ".join(f"{key} {value}" for key, value in built.items()),
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        "python": f"{platform.python_version()}, {platform.platform()}",
    }
    for package in ("numpy", "triton", "cuda-bindings"):
        try:
            rows[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            rows[package] = "not installed"
    return rows


def devices() -> dict[str, str]:
    """The devices that kernels can run on, as text."""
    info = _C.cuda_info()
    rows = {
        "cpu": f"{platform.machine()}, {torch.get_num_threads()} threads, kernels on {_C.cpu_capability()}, "
        f"torch on {torch.backends.cpu.get_cpu_capability()}",
        "cuda driver": str(info["driver_version"] or info["driver_error"]),
        "cuda code embedded": info["archs"] or "none (built without nvcc; NVRTC compiles at first use)",
        "nvrtc cache": str(nvrtc.cache_folder()),
    }
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        rows[f"cuda:{i}"] = f"{p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.0f} GiB"
    return rows


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison of a kernel with the float64 reference: the largest error, in units of what the dtype allows."""

    op: str
    device: str
    dtype: str
    error: float

    @property
    def ok(self) -> bool:
        return self.error <= 1.0


def _cases(device: str, dtype: torch.dtype) -> Iterator[tuple[str, Callable[..., Tensor], list[Tensor]]]:
    """Every public loss and gradient penalty with inputs that do not divide a vector or a block."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) * 4).to(device, dtype)

    real, fake, target = draw(7, 1, 13, 11), draw(7, 1, 13, 11), draw(7, 1, 13, 11).sigmoid()
    for name in losses.LOSSES:
        loss = losses.get(name)()
        yield name, lambda r, f, loss=loss: loss.discriminator(real=r, fake=f), [real, fake]
        yield f"{name} (G)", lambda f, r, loss=loss: loss.generator(fake=f, real=r), [fake, real]
    yield "bce with logits", losses.binary_cross_entropy_with_logits, [real, target]
    probability = draw(7, 1, 13, 11).sigmoid().clamp(0.01, 0.99)
    yield "bce", losses.binary_cross_entropy, [probability, target]
    yield "softplus", lambda x: losses.softplus(x).sum() / x.numel(), [real]
    yield "logsigmoid", lambda x: losses.logsigmoid(x).sum() / x.numel(), [real]
    yield "feature matching", lambda a, b: losses.cycle_consistency(a, b, 1.0), [real, fake]

    def linear(weight: Tensor, images: Tensor) -> Tensor:
        return (weight * images).flatten(1).sum(1)

    def r1(weight: Tensor) -> Tensor:
        images = torch.zeros_like(weight).requires_grad_()
        return penalties.r1_penalty(linear(weight, images), images, 2.0)

    # the image gradient of a linear critic is its weight: one for every sample here
    yield "r1", r1, [real]
    for one_sided in (False, True):
        name = "gradient penalty, one-sided" if one_sided else "gradient penalty"
        penalty = functools.partial(penalties.gradient_penalty, one_sided=one_sided)
        yield name, lambda w, f=penalty: f(functools.partial(linear, w), w.detach(), w.detach()), [real]

    def second_order(weight: Tensor) -> Tensor:
        """Half the squared image gradient of a strided grouped convolution, a leaky ReLU and a pooling."""
        images = (torch.arange(4 * 6 * 9 * 9).view(4, 6, 9, 9) % 17 - 8.0).to(weight).requires_grad_()
        kernel = weight.flatten()[: 4 * 3 * 9].view(4, 3, 3, 3) / 16
        y = ops.avg_pool2d(ops.leaky_relu(ops.conv2d(images, kernel, stride=2, padding=1, groups=2), 0.2), 2)
        (g,) = torch.autograd.grad(y.sum(), images, create_graph=True)
        return g.square().sum() / 2

    yield "R1 of layers", second_order, [real]

    def wide(x: Tensor, weight: Tensor, order: torch.memory_format = torch.contiguous_format) -> Tensor:
        y = ops.conv2d(x.contiguous(memory_format=order), weight / 60, padding=1)
        return y.square().mean(dtype=torch.promote_types(x.dtype, torch.float32))

    yield "convolution 3x3", wide, [draw(1, 40, 33, 31), draw(40, 40, 3, 3)]
    of_weight = [draw(40, 40, 3, 3), draw(1, 40, 33, 31)]
    yield "convolution 3x3, of its weight", lambda w, x: wide(x, w, torch.channels_last), of_weight

    def modulated(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
        y = ops.modulated_conv2d(x.expand(-1, 3, -1, -1), weight, styles, padding=1, act="lrelu", clamp=16.0)
        return y.square().mean(dtype=torch.promote_types(x.dtype, torch.float32))

    yield "modulated convolution", modulated, [real, draw(5, 3, 3, 3), draw(7, 3) / 4 + 1]

    def wide_layer(x: Tensor, weight: Tensor, styles: Tensor, order: torch.memory_format) -> Tensor:
        x, demodulate = x.contiguous(memory_format=order), order == torch.channels_last
        y = ops.modulated_conv2d(x, weight / 60, styles, padding=1, demodulate=demodulate, act="lrelu")
        return y.square().sum(dtype=torch.promote_types(x.dtype, torch.float32)) / 128

    last, flat = torch.channels_last, torch.contiguous_format
    x, weight, styles = draw(1, 130, 33, 31), draw(128, 130, 3, 3), draw(1, 130) / 4 + 1
    yield "wide modulated convolution", lambda x, w: wide_layer(x, w, styles, last), [x, weight]
    # what demodulation leaves of the weight's gradient is small beside what it takes away
    yield "wide modulated convolution, of its weight", lambda w, x: wide_layer(x, w, styles, flat), [weight, x]
    binomial = ops.setup_filter([1, 3, 3, 1], device)

    def layers(x: Tensor, up: Tensor, down: Tensor, styles: Tensor) -> Tensor:
        x = ops.modulated_conv2d(x, up / 4, styles, None, 2, 1, 1, binomial, flip_weight=False, act="lrelu")
        return ops.conv2d_resample(x, down / 16, binomial, 1, 2, 1).square().mean()

    yield "resampled convolutions", layers, [draw(3, 5, 7, 6), draw(4, 5, 3, 3), draw(6, 4, 3, 3), draw(3, 5) / 4 + 1]
    yield from _bias_act_cases(draw)
    yield from _resampling_cases(draw, device)


def _bias_act_cases(draw: Callable[..., Tensor]) -> Iterator[tuple[str, Callable[..., Tensor], list[Tensor]]]:
    """Every activation with all parameters in both memory orders: a value, its gradient, and a gradient's gradient."""
    x, b, scale, noise = draw(3, 5, 7, 9), draw(5), draw(3, 5), draw(3, 1, 7, 9)

    def value(act: str, order: torch.memory_format, x: Tensor, b: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        x = x.contiguous(memory_format=order) / 4
        return ops.bias_act(x, b / 4, act=act, scale=scale / 4, noise=noise / 4).mean()

    def penalty(act: str, x: Tensor, b: Tensor) -> Tensor:
        leaf = x / 4 if x.requires_grad else x.detach().requires_grad_() / 4
        (g,) = torch.autograd.grad(ops.bias_act(leaf, b / 4, act=act).square().sum(), leaf, create_graph=True)
        return g.square().sum()

    for act in ACTIVATIONS:
        for order in (torch.contiguous_format, torch.channels_last):
            where = "" if order == torch.contiguous_format else ", channels_last"
            yield f"bias_act {act}{where}", functools.partial(value, act, order), [x, b, scale, noise]
        yield f"R1 of bias_act {act}", functools.partial(penalty, act), [x, b]


def _resampling_cases(
    draw: Callable[..., Tensor], device: str
) -> Iterator[tuple[str, Callable[..., Tensor], list[Tensor]]]:
    """Up, down, filters of several lengths, both memory orders, filtered_lrelu, and sampling."""
    real = draw(7, 1, 13, 11)
    binomial, long = ops.setup_filter([1, 3, 3, 1], device), ops.setup_filter([1.0, 2.0] * 6, device)
    matrix = torch.arange(1.0, 16.0).view(3, 5).to(device) / 40
    for name, resample in (
        ("upsample2d", lambda x: ops.upsample2d(x, binomial)),
        ("downsample2d", lambda x: ops.downsample2d(x, binomial)),
        ("filter2d", lambda x: ops.filter2d(x, binomial)),
        ("upsample2d, 12 taps", lambda x: ops.upsample2d(x, long)),
        ("upfirdn2d, any", lambda x: ops.upfirdn2d(x, matrix, up=[2, 3], down=[3, 2], padding=[4, -1, 2, 3])),
    ):
        yield name, lambda x, f=resample: f(x).square().mean(), [real]
        images = draw(1, 8, 7, 11).contiguous(memory_format=torch.channels_last)
        yield f"{name}, channels_last", lambda x, f=resample: f(x).square().mean(), [images]

    def filtered(x: Tensor) -> Tensor:
        taps = torch.arange(1.0, 13.0, device=x.device) / 78
        y = ops.filtered_lrelu(x, taps, taps, None, 2, 2, [12, 11, 12, 11], clamp=4.0)
        return y.mean(dtype=torch.promote_types(x.dtype, torch.float32))

    yield "filtered lrelu", filtered, [real]

    def turned(x: Tensor) -> Tensor:
        turn = torch.tensor([[0.8, 0.6, 0.1], [-0.6, 0.8, 0.0]]).expand(len(x), 2, 3)
        grid = torch.nn.functional.affine_grid(turn, list(x.shape), align_corners=False).to(x.device)
        return ops.grid_sample(x, grid).mean(dtype=torch.promote_types(x.dtype, torch.float32))

    yield "grid sample", turned, [real]


def check() -> list[Check]:
    """Run every kernel forward and backward on every device, dtype and instruction set, beside the fp64 reference."""
    places = [("cpu", name) for name in ("default", "avx2", "avx512")]
    places += [(f"cuda:{i}", "") for i in range(torch.cuda.device_count())]
    before, tf32 = _C.cpu_capability(), torch.backends.cudnn.allow_tf32
    results = []
    try:
        torch.backends.cudnn.allow_tf32 = False  # a convolution with 10 bits of mantissa is not judged as float32
        for device, capability in places:
            if capability:
                try:
                    _C.set_cpu_capability(capability)
                except ValueError:
                    continue  # not in this build or not on this processor: the table above says what is used
            for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
                for name, function, inputs in _cases(device, dtype):
                    where = f"{device} {capability}".strip()
                    results.append(Check(name, where, str(dtype).removeprefix("torch."), _error(function, inputs)))
    finally:
        _C.set_cpu_capability(before)
        torch.backends.cudnn.allow_tf32 = tf32
    return results


def _error(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> float:
    """The largest error of value and gradients over the largest entry, in units of 16 eps of the dtype."""

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        leaves = [t.detach().requires_grad_(i < 1) for i, t in enumerate(tensors)]
        value = function(*leaves)
        return [value.detach(), *torch.autograd.grad(value, leaves[:1])]

    found = run(inputs)
    with gan_fast.reference_mode():
        exact = run([t.double().cpu() for t in inputs])
    worst = 0.0
    for a, b in zip(found, exact, strict=True):
        scale = float(b.abs().max()) * 16 * torch.finfo(inputs[0].dtype).eps
        error = float((a.double().cpu() - b).abs().max()) / scale
        worst = max(worst, error if error == error else float("inf"))
    return worst


def _print_table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
    widths = [max(len(str(row[i])) for row in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, ["-" * w for w in widths], *rows):
        print("  " + "  ".join(str(cell).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def main(argv: Sequence[str] | None = None) -> int:
    """The command: print, and with `--check` return 1 if a kernel disagrees with its reference."""
    parser = argparse.ArgumentParser(prog="gan-fast doctor", description=__doc__)
    parser.add_argument("--check", action="store_true", help="run every kernel against the reference")
    options = parser.parse_args(argv)
    for title, rows in (("versions", versions()), ("devices", devices())):
        print(title)
        for key, value in rows.items():
            print(f"  {key:<18} {value}")
    print("kernels")
    _print_table([(s.op, s.device, s.kernel, s.reason) for s in serving()], ("op", "device", "kernel", "why"))
    measured = modulated_choices()
    if measured:
        print("modulated convolution, measured (microseconds)")
        _print_table(measured, ("card", "product", "triton", "shared", "serves"))
    if not options.check:
        return 0
    results = check()
    bad = [r for r in results if not r.ok]
    print("check (value and gradient against the float64 reference; 1.0 is 16 eps of the largest entry)")
    worst: dict[tuple[str, str], float] = {}
    for r in results:
        worst[r.device, r.dtype] = max(worst.get((r.device, r.dtype), 0.0), r.error)
    _print_table([(d, t, f"{e:.2f}") for (d, t), e in worst.items()], ("device", "dtype", "worst"))
    for r in bad:
        print(f"  DISAGREES {r.op} on {r.device} in {r.dtype}: {r.error:.3g}", file=sys.stderr)
    print(f"  {len(results) - len(bad)} of {len(results)} agree")
    return 1 if bad else 0
