"""A generator in a file that runs without gan_fast: `torch.export` (.pt2) or ONNX (.onnx).

    latents [N, D]      z ~ N(0, I), float32
    classes [N, K]      one-hot, or any mixture; only of a generator that knows classes
    truncation []       psi: 1 leaves the styles as they are, 0 is their mean; only of a generator that has styles
    -> images [N, C, H, W] in [-1, 1], samples [N, D] (points) or sounds [N, 1, T]

    images [N, C, H, W] -> translated [N, C, H, W]                of one direction of a translator
    log_mels [N, M, F]  -> sounds [N, 1, F hop]                   of a vocoder

Sizes N, of a translator H and W, and of a vocoder F are free, and inputs are given by name.

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
from gan_fast.models import hifigan, stylegan2
from gan_fast.training.control import Control
from gan_fast.training.sampling import Sampler
from gan_fast.training.translation import Direction, Translator, network_of
from gan_fast.training.vocoding import Vocoder

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
            f"{self.path}: {inputs} -> {self.output}; float32, letters are free sizes",
            f"  largest difference from the generator {self.difference:.1e}, at {len(_BATCHES)} batch sizes",
        ]


class Portable(nn.Module):
    """A generator as the file holds it.

    Attributes:
        generator: it, in evaluation mode on the CPU.
        inputs: name and shape of each input, in order.
        output, shape: name and shape of what comes out.
    """

    output: str
    shape: str

    def __init__(self, generator: nn.Module, inputs: dict[str, str]) -> None:
        super().__init__()
        self.generator, self.inputs = generator, inputs

    def examples(self) -> list[dict[str, Tensor]]:
        """Inputs to compare at: the same numbers at every call. The largest are the last, and the graph is traced with
        them."""
        raise NotImplementedError

    def free(self) -> dict[str, Any]:
        """Which sizes of each input are free, as `torch.export` wants to be told."""
        raise NotImplementedError


class FromLatents(Portable):
    """Latents, and classes and truncation where the generator has them, to images in [-1, 1], points or sounds."""

    def __init__(self, control: Control) -> None:
        generator = control.generator
        inputs = {"latents": f"[N, {control.latent_size}]"}
        if control.classes:
            inputs["classes"] = f"[N, {control.classes}]"
        # Without a mean style there is nothing to truncate towards.
        truncatable = isinstance(generator, stylegan2.Generator) and generator.mapping.w_avg_beta is not None
        if truncatable:
            inputs["truncation"] = "[]"
        super().__init__(generator, inputs)
        self.latent_size, self.classes, self.truncatable = control.latent_size, control.classes, truncatable
        with torch.no_grad():
            sizes = self(**self.examples()[0]).shape[1:]
        self.output = ("samples", "sounds", "images")[len(sizes) - 1]
        self.shape = f"[N, {', '.join(map(str, sizes))}]"

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

    def examples(self) -> list[dict[str, Tensor]]:
        psis = _TRUNCATIONS if self.truncatable else (1.0,)
        return [self._example(batch, psi) for batch in _BATCHES for psi in psis]

    def _example(self, batch: int, truncation: float) -> dict[str, Tensor]:
        values = {"latents": torch.randn(batch, self.latent_size, generator=torch.Generator().manual_seed(batch))}
        if self.classes:
            values["classes"] = torch.eye(self.classes)[torch.arange(batch) % self.classes]
        if self.truncatable:
            values["truncation"] = torch.tensor(truncation)
        return values

    def free(self) -> dict[str, Any]:
        batch = torch.export.Dim("batch", min=1)
        return {name: {0: batch} if name != "truncation" else None for name in self.inputs}


class FromImages(Portable):
    """Images in [-1, 1] to images of the same shape, of any sides that a number of the network divides."""

    def __init__(self, translator: Translator, direction: Direction) -> None:
        generator = network_of(translator.generator, direction)
        shape = f"[N, {translator.size[0]}, H, W]"
        super().__init__(generator, {"images": shape})
        self.output, self.shape = "translated", shape
        self.channels, self.multiple = translator.size[0], translator.multiple

    def forward(self, images: Tensor) -> Tensor:
        translated: Tensor = self.generator(images)
        return translated.contiguous()

    def examples(self) -> list[dict[str, Tensor]]:
        sides = [(batch, (batch + 1) * self.multiple, (batch + 2) * self.multiple) for batch in _BATCHES]
        return [
            {"images": torch.rand(n, self.channels, h, w, generator=torch.Generator().manual_seed(n)) * 2 - 1}
            for n, h, w in sides
        ]

    def free(self) -> dict[str, Any]:
        rows, columns = (self.multiple * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        return {"images": {0: torch.export.Dim("batch", min=1), 2: rows, 3: columns}}


class FromMels(Portable):
    """Log mel spectrograms, of any number of frames, to waveforms."""

    def __init__(self, vocoder: Vocoder) -> None:
        settings = vocoder.generator.mel.settings
        super().__init__(vocoder.generator, {"log_mels": f"[N, {settings.bands}, F]"})
        self.output, self.shape = "sounds", f"[N, 1, {settings.hop} F]"
        self.bands = settings.bands

    def forward(self, log_mels: Tensor) -> Tensor:
        sounds: Tensor = self.generator(log_mels)
        return sounds

    def examples(self) -> list[dict[str, Tensor]]:
        return [
            {"log_mels": torch.randn(n, self.bands, 8 + n, generator=torch.Generator().manual_seed(n)) - 4}
            for n in _BATCHES
        ]

    def free(self) -> dict[str, Any]:
        return {"log_mels": {0: torch.export.Dim("batch", min=1), 2: torch.export.Dim("frames", min=2)}}


def portable(source: Control | Translator | Vocoder, direction: Direction | None = None) -> Portable:
    """What is written of a generator. `direction` is a translator's, needed where it has two.

    ValueError for a direction that it does not have, or that is missing.
    """
    if isinstance(source, Translator):
        if direction is None and len(source.directions) > 1:
            raise ValueError(f"{source.folder} translates both ways: choose --direction AtoB or BtoA")
        chosen = direction or source.directions[0]
        if chosen not in source.directions:
            raise ValueError(f"{source.folder} translates {source.directions[0]} only, not {chosen}")
        return FromImages(source, chosen)
    if direction is not None:
        raise ValueError("a direction is for generators that take pictures: leave --direction out")
    return FromMels(source) if isinstance(source, Vocoder) else FromLatents(source)


def open_run(run: Path) -> Control | Translator | Vocoder:
    """The averaged generator of a run folder or a checkpoint, by what it takes. CheckpointError where it is neither."""
    sampler = Sampler(run)
    if isinstance(sampler.generator, hifigan.Generator):
        return Vocoder(run)
    return Control(run) if sampler.latent_size else Translator(run)


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


def export(
    source: Control | Translator | Vocoder,
    paths: Sequence[Path],
    tolerance: float = TOLERANCE,
    direction: Direction | None = None,
) -> list[Exported]:
    """Write the generator to each of `paths`, `.pt2` or `.onnx`, each checked and then put in its place in one step.

    ExportError where the graph cannot be made or where a file differs from the generator by more than `tolerance`.
    """
    check_paths(paths)
    module = portable(source, direction).requires_grad_(False).eval()
    device = next(module.parameters()).device
    if device.type != "cpu":
        raise ValueError(f"a generator is exported from the CPU, got one on {device}")
    program = trace(module)
    made_from = source.folder if isinstance(source, Translator) else source.source
    return [_write(module, program, path, tolerance, str(made_from)) for path in paths]


def trace(module: Portable) -> torch.export.ExportedProgram:
    """The graph of `module` in ops of PyTorch alone, for any batch. ExportError where there is none."""
    try:
        with torch.no_grad():
            inputs = module.examples()[-1]
            program = torch.export.export(module, (), inputs, dynamic_shapes=module.free(), strict=False)
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
    about = {"inputs": module.inputs, "output": module.output, "source": source, "made_by": "gan_fast"}
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
    return Exported(path, module.inputs, f"{module.output} {module.shape}", difference)


@torch.no_grad()
def _difference(module: Portable, run: Run) -> float:
    """The largest over the examples; infinite where a shape differs or a value is not a number."""
    worst = 0.0
    for inputs in module.examples():
        expected, got = module(**inputs), run(inputs)
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
