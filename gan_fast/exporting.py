"""A generator in a file that runs without gan_fast: `torch.export` (.pt2) or ONNX (.onnx).

    latents [N, D]      z ~ N(0, I), float32
    classes [N, K]      one-hot, or any mixture; only of a generator that knows classes
    truncation []       psi: 1 leaves the styles as they are, 0 is their mean; only of a generator that has styles
    -> images [N, C, H, W] in [-1, 1], or points [N, D]; N is free, and inputs are given by name

The graph is traced once, in float32 on the CPU with constant noise, and every op of gan_fast in it is then replaced by
its reference, the plain PyTorch that also serves devices without a kernel. What is written is loaded again and compared
with the generator it came from, at several batch sizes, before it gets its name.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_fast._library import KERNELS
from gan_fast.models import stylegan2
from gan_fast.training.control import Control

SUFFIXES = (".pt2", ".onnx")
# Of values in [-1, 1]: a hundredth of the step from one grey level to the next. Sums in another order move float32
# results by about 1e-6.
TOLERANCE = 1e-4
_BATCHES = (1, 3, 4)
_TRUNCATIONS = (1.0, 0.5, 0.0)
Run = Callable[[dict[str, Tensor]], Tensor]


class ExportError(RuntimeError):
    """A generator that cannot be exported, or a file that does not give what the generator gives."""


class Exported(NamedTuple):
    """A file that was written.

    inputs: name and shape, in order. difference: the largest from the generator in the checks.
    """

    path: Path
    inputs: dict[str, str]
    output: str
    difference: float

    def lines(self) -> list[str]:
        """For people."""
        inputs = ", ".join(f"{name} {shape}" for name, shape in self.inputs.items())
        return [
            f"{self.path}: {inputs} -> {self.output}; float32, N is free",
            f"  largest difference from the generator {self.difference:.1e}, at {len(_BATCHES)} batch sizes",
        ]


class Portable(nn.Module):
    """A generator as the file holds it: its inputs in the order above, those it has, and images in [-1, 1]."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        generator = self.generator = control.generator
        self.latent_size, self.classes = control.latent_size, control.classes
        # Without a mean style there is nothing to truncate towards.
        self.truncatable = isinstance(generator, stylegan2.Generator) and generator.mapping.w_avg_beta is not None
        self.inputs = {"latents": f"[N, {self.latent_size}]"}
        if self.classes:
            self.inputs["classes"] = f"[N, {self.classes}]"
        if self.truncatable:
            self.inputs["truncation"] = "[]"

    def forward(self, latents: Tensor, classes: Tensor | None = None, truncation: Tensor | None = None) -> Tensor:
        given = () if classes is None else (classes,)
        if not isinstance(self.generator, stylegan2.Generator):
            samples: Tensor = self.generator(latents, *given)
            return samples.clamp(-1, 1).contiguous() if samples.ndim == 4 else samples
        styles = self.generator.mapping(latents, *given)
        if truncation is not None:
            mean = self.generator.mapping.w_avg
            styles = mean + truncation * (styles - mean)
        return self.generator.synthesis(styles, "const", force_fp32=True).clamp(-1, 1).contiguous()

    def example(self, batch: int, truncation: float = 1.0) -> dict[str, Tensor]:
        """Inputs: the same numbers at every call."""
        values = {"latents": torch.randn(batch, self.latent_size, generator=torch.Generator().manual_seed(batch))}
        if self.classes:
            values["classes"] = torch.eye(self.classes)[torch.arange(batch) % self.classes]
        if self.truncatable:
            values["truncation"] = torch.tensor(truncation)
        return values


def check_paths(paths: Sequence[Path]) -> None:
    """ValueError for a path that ends in no known format; ExportError where its packages are missing."""
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"a file to export to must end in {' or '.join(SUFFIXES)}, got {path}")
    if any(path.suffix.lower() == ".onnx" for path in paths):
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ExportError(f"ONNX needs {error.name}: pip install 'gan-fast[export]', or write a .pt2") from error


def export(control: Control, paths: Sequence[Path], tolerance: float = TOLERANCE) -> list[Exported]:
    """Write the generator to each of `paths`, `.pt2` or `.onnx`, each checked and then put in its place in one step.

    ExportError where the graph cannot be made or where a file differs from the generator by more than `tolerance`.
    """
    check_paths(paths)
    if control.device.type != "cpu":
        raise ValueError(f"a generator is exported from the CPU, got one on {control.device}")
    module = Portable(control).requires_grad_(False).eval()
    program = trace(module)
    return [_write(module, program, path, tolerance, str(control.source)) for path in paths]


def trace(module: Portable) -> torch.export.ExportedProgram:
    """The graph of `module` in ops of PyTorch alone, for any batch. ExportError where there is none."""
    inputs = module.example(3)
    batch = torch.export.Dim("batch", min=1)
    shapes = {name: {0: batch} if value.ndim else None for name, value in inputs.items()}
    try:
        with torch.no_grad():
            program = torch.export.export(module, (), inputs, dynamic_shapes=shapes, strict=False)
            program = program.run_decompositions(_references())
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch.export cannot trace this generator: {type(error).__name__}: {reason}") from error
    left = {str(node.target) for node in program.graph.nodes if str(node.target).startswith("gan_fast")}
    if left:
        raise ExportError(f"no plain PyTorch stands for {', '.join(sorted(left))}")
    return program


def _write(
    module: Portable, program: torch.export.ExportedProgram, path: Path, tolerance: float, source: str
) -> Exported:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    output = "images" if module(**module.example(1)).ndim == 4 else "samples"
    about = {"inputs": module.inputs, "output": output, "source": source, "made_by": "gan_fast"}
    onnx = path.suffix.lower() == ".onnx"
    try:
        (_save_onnx if onnx else _save_pt2)(program, partial, about)
        difference = _difference(module, (_run_onnx if onnx else _run_pt2)(partial))
        if not difference <= tolerance:
            raise ExportError(
                f"{path} would differ from its generator by {difference:.1e}, more than the tolerance of "
                f"{tolerance:.1e}: nothing was written"
            )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    shape = "[N, " + ", ".join(map(str, module(**module.example(1)).shape[1:])) + "]"
    return Exported(path, module.inputs, f"{output} {shape}", difference)


def _difference(module: Portable, run: Run) -> float:
    """The largest over batch sizes and truncations; infinite where a shape differs or a value is not a number."""
    worst = 0.0
    for batch in _BATCHES:
        for truncation in _TRUNCATIONS if module.truncatable else (1.0,):
            inputs = module.example(batch, truncation)
            with torch.no_grad():
                expected = module(**inputs)
            got = run(inputs)
            if got.shape != expected.shape:
                return float("inf")
            worst = max(worst, float((got - expected).abs().max().nan_to_num(torch.inf)))
    return worst


def _save_pt2(program: torch.export.ExportedProgram, path: Path, about: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files={"gan_fast.json": json.dumps(about)})


def _run_pt2(path: Path) -> Run:
    with open(path, "rb") as file:
        loaded = torch.export.load(file).module()
    return lambda inputs: loaded(**inputs)


def _save_onnx(program: torch.export.ExportedProgram, path: Path, about: dict[str, Any]) -> None:
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    with warnings.catch_warnings():
        # Of the exporter about itself, and that it knows nothing of torchvision, which is not here either.
        warnings.simplefilter("ignore")
        log.disabled = True
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(about["inputs"]),
            output_names=[about["output"]],
            verbose=False,
        )
    log.disabled = False
    assert made is not None
    made.model.metadata_props["gan_fast"] = json.dumps(about)
    made.save(str(path), external_data=False)


def _run_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(None, {name: x.numpy() for name, x in inputs.items()})[0])


def _references() -> dict[Any, Callable[..., Any]]:
    """For each op of gan_fast plain PyTorch with its signature, on top of torch's own decompositions."""
    ops = torch.ops.gan_fast
    table: dict[Any, Callable[..., Any]] = {getattr(ops, name).default: kernel for name, kernel in KERNELS.items()}
    table[ops.convolution.default] = torch.ops.aten.convolution.default
    table[ops.convolution_input_gradient.default] = _convolution_input_gradient
    table[ops.linear.default] = torch.ops.aten.linear.default
    return table


def _convolution_input_gradient(
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Of a convolution its transposed one, whose output padding makes the result as large as `x`; and the reverse."""
    back = [0] * len(stride)
    if not transposed:
        for i, (s, p, d) in enumerate(zip(stride, padding, dilation, strict=True)):
            least = (dy.shape[2 + i] - 1) * s - 2 * p + d * (w.shape[2 + i] - 1) + 1
            back[i] = x.shape[2 + i] - least
    given = torch.ops.aten.convolution.default
    result: Tensor = given(dy, w, None, stride, padding, dilation, not transposed, back, groups)
    return result
