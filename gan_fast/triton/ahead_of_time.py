"""Compiles a plan for a card that need not be here, and reads from the cubin what the compiler made of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gan_fast.triton import modulated_convolution as kernels
from gan_fast.triton.plans import Plan

_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
}
# What tells a tensor-core product in the machine code of each architecture, and in the PTX.
_PRODUCTS = ("wgmma.mma_async", "tcgen05.mma", "mma.sync")


@dataclass(frozen=True)
class Compiled:
    """What one kernel became: registers a thread, bytes, and how often an instruction occurs."""

    arch: int
    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    products: dict[str, int]
    loads: dict[str, int]
    local_instructions: int
    asm: Any

    @property
    def product(self) -> str:
        """The tensor-core instruction of the inner loop, or "none"."""
        return next((name for name in _PRODUCTS if self.products.get(name)), "none")


def signature(plan: Plan) -> tuple[dict[str, str], dict[tuple[int, ...], Any], dict[tuple[int, ...], Any]]:
    """Types, constants and divisibility by 16, as the just-in-time compiler would read them from the arguments."""
    types: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for i, (name, value) in enumerate(plan.arguments.items()):
        if isinstance(value, Tensor):
            types[name] = _TYPES[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        elif name.isupper() or value is None or (isinstance(value, int) and value == 1):
            types[name] = "constexpr"
            constants[(i,)] = value
        elif isinstance(value, int):
            types[name] = "i32"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            types[name] = "fp32"
    return types, constants, attributes


def compile_plan(plan: Plan, capability: int) -> Compiled:
    """The plan's kernel for compute capability 80, 90, 100, ... ."""
    types, constants, attributes = signature(plan)
    source = ASTSource(getattr(kernels, plan.kernel), types, constants, attributes)
    options = {"num_warps": plan.tile.warps, "num_stages": plan.tile.stages}
    done = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return read(done.asm, done.metadata.shared, capability)


def read(asm: Any, shared: int, capability: int) -> Compiled:
    """Resources from the cubin (`cuobjdump`), instructions from PTX and machine code."""
    ptx = asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(asm["cubin"])
        usage = _tool("cuobjdump", "-res-usage", file.name)
        sass = _tool("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of the resources of the kernel: {usage!r}")
    registers, stack, static, local = map(int, found.groups())
    opcodes = Counter(re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9.]*)", sass, re.MULTILINE))
    return Compiled(
        arch=capability,
        registers=registers,
        stack_bytes=stack,
        local_bytes=local,
        shared_bytes=max(shared, static),
        products={name: len(re.findall(re.escape(name), ptx)) for name in _PRODUCTS},
        loads={name: count for name, count in opcodes.items() if name.startswith(("LDG", "LDGSTS", "UTMALDG"))},
        local_instructions=sum(count for name, count in opcodes.items() if name.startswith(("LDL", "STL"))),
        asm=asm,
    )


def _tool(name: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([str(path), *arguments], check=True, capture_output=True, text=True).stdout
