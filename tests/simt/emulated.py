"""The CUDA side of every op, host code included, on CPU tensors: `emulated.ops().adversarial_loss(...)`.

One library holds the ops' ``_cuda.cpp`` files, their kernels compiled by the emulator, and a launcher that runs them.
Outputs are poisoned (torch fills empty tensors with NaN in deterministic mode), so what nobody writes shows.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import functools
import hashlib
import os
import re
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.utils.cpp_extension

from simt import runner

OPS = (
    "adversarial_loss",
    "bias_act",
    "binary_cross_entropy",
    "filtered_lrelu",
    "gradient_penalty",
    "l1_distance",
    "softplus",
    "upfirdn2d",
)
# Their CUDA side calls nothing that the file with the schemas defines.
STANDALONE = (
    "bias_act",
    "filtered_lrelu",
    "gradient_penalty",
    "softplus",
    "upfirdn2d",
)
CSRC = runner.ROOT / "csrc"
_FLAGS = (
    "-std=c++20",
    "-O0",
    "-fPIC",
    "-pthread",
    "-w",
    "-ffp-contract=off",
    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
)


def kernel_names(source: Path) -> list[str]:
    """The extern "C" kernels of a .cu file, by preprocessing it."""
    command = [
        str(runner.COMPILER),
        "-E",
        "-x",
        "c++",
        "-std=c++20",
        f"-I{CSRC}",
        "-D__global__=SIMT_KERNEL",
        "-D__launch_bounds__(...)=",
        str(source),
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.findall(r'extern "C" SIMT_KERNEL void\s+(\w+)\s*\(', text)


def _include_flags() -> list[str]:
    folders = [str(CSRC), str(runner.HERE)]
    system = [*torch.utils.cpp_extension.include_paths(), sysconfig.get_paths()["include"]]
    return [*(f"-I{f}" for f in folders), *(f"-isystem{f}" for f in system)]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-6000:]}")


def _compile(name: str, text: str, folder: Path, extra: Sequence[str] = (), suffix: str = ".o") -> Path:
    """An object file of a text, compiled once for its content and that of the files it includes."""
    digest = hashlib.sha256("\0".join([torch.__version__, *_FLAGS, *extra, text]).encode())
    includes = re.findall(r'^#include "([^"]+)"', text, re.MULTILINE)
    for include in includes:
        path = next(p for f in (CSRC, runner.HERE) if (p := f / include).is_file())
        for data in runner._inputs(path, [CSRC, runner.HERE]):
            digest.update(data)
    out = folder / f"{name}-{digest.hexdigest()[:16]}{suffix}"
    if not out.exists():
        source = out.with_suffix(f".{os.getpid()}.cpp")
        part = out.with_suffix(f".{os.getpid()}.part")
        source.write_text(text)
        _run([str(runner.COMPILER), *_FLAGS, *extra, *_include_flags(), "-c", str(source), "-o", str(part)])
        source.unlink()
        os.replace(part, out)
    return out


def _precompile(folder: Path) -> Path:
    """A folder whose emulated_torch.h g++ takes precompiled; it must be searched first."""
    text = (runner.HERE / "emulated_torch.h").read_text()
    digest = hashlib.sha256("\0".join([torch.__version__, *_FLAGS, text]).encode()).hexdigest()[:16]
    out = folder / f"torch-{digest}"
    compiled = out / "emulated_torch.h.gch"
    if not compiled.exists():
        out.mkdir(exist_ok=True)
        (out / "emulated_torch.h").write_text(text)
        part = compiled.with_suffix(f".{os.getpid()}")
        command = [
            str(runner.COMPILER),
            *_FLAGS,
            *_include_flags(),
            "-x",
            "c++-header",
            str(out / "emulated_torch.h"),
            "-o",
            str(part),
        ]
        _run(command)
        os.replace(part, compiled)
    return out


def _build() -> Path:
    folder = runner.cache_folder() / "emulated"
    folder.mkdir(exist_ok=True)
    torch_headers = f"-I{_precompile(folder)}"
    first = '#include "emulated_torch.h"\n'
    host = {
        "launcher": f'{first}#include "emulated_launcher.cpp"\n',
        "map_reduce": f'{first}#include "common/cuda/map_reduce_host.cpp"\n',
    }
    device = {}
    for op in OPS:
        for part in ("", "_host", "_cuda"):
            if (op not in STANDALONE or part) and (CSRC / op / f"{op}{part}.cpp").is_file():
                host[f"{op}{part}"] = f'{first}#include "emulated_prelude.h"\n#include "{op}/{op}{part}.cpp"\n'
        names = kernel_names(CSRC / op / f"{op}.cu")
        entries = "".join(f"EMULATED_KERNEL({n});\n" for n in names)
        device[f"{op}_kernels"] = f'#include "emulated_kernels.h"\n#include "{op}/{op}.cu"\n{entries}'
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(_compile, name, text, folder, [torch_headers]) for name, text in host.items()]
        jobs += [pool.submit(_compile, name, text, folder, ["-O1"]) for name, text in device.items()]
        objects = [str(job.result()) for job in jobs]
    name = hashlib.sha256("\0".join(objects).encode()).hexdigest()[:16]
    library = folder / f"emulated-{name}.so"
    if not library.exists():
        lib = Path(torch.__file__).parent / "lib"
        part = library.with_suffix(f".{os.getpid()}")
        _run(
            [
                str(runner.COMPILER),
                "-shared",
                "-pthread",
                *objects,
                f"-L{lib}",
                "-ltorch",
                "-ltorch_cpu",
                "-lc10",
                "-o",
                str(part),
            ]
        )
        os.replace(part, library)
    return library


@functools.cache
def _load() -> tuple[ctypes.CDLL, torch.library.Library]:
    import gan_fast  # noqa: F401  the schemas

    definitions = torch.library.Library("gan_fast_simt", "DEF")
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("gan_fast::"):
            definitions.define(str(schema).removeprefix("gan_fast::"))
    path = str(_build())
    torch.ops.load_library(path)
    return ctypes.CDLL(path), definitions


def ops() -> Any:
    """The namespace with the emulated ops, called as those of `torch.ops.gan_fast` on CUDA would be, below autograd."""
    _load()
    return torch.ops.gan_fast_simt


def configure(*, order: str = "forward", resident_blocks: int = 6) -> None:
    """In which order blocks run, and how many the pretended card holds at once."""
    _load()[0].emulated_configure(runner.ORDERS[order], resident_blocks)


def take_launch_count() -> int:
    """Kernels launched since the last call."""
    return int(_load()[0].emulated_take_launch_count())


def counters_are_zero() -> bool:
    return bool(_load()[0].emulated_counters_are_zero())
