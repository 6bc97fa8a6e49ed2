"""Runs a CUDA kernel's own source on the CPU through the SIMT emulator (`simt.h`).

A program is one `.cu` file compiled with g++ in one of three variants: `plain`, `memory` (ASan + UBSan) and `threads`
(TSan). A launch names a kernel, a grid, a block and its arguments as one `ctypes.Structure` laid out like the kernel's
parameters; a field of type `Pointer` takes `pointer(buffer)`. Sanitizers need a process of their own, so buffers travel
through files:

    program = simt.build("csrc/scale/scale.cu", ["scale_f32"])
    out = simt.Buffer.poisoned((100,), np.float32)
    arguments = Arguments(x=simt.pointer(simt.Buffer(x)), out=simt.pointer(out), n=100)
    program.launch("scale_f32", grid=1, block=256, arguments=arguments)
    out.array
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")

VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "memory": ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fsanitize-sections=simt_shared"),
    "threads": ("-fsanitize=thread",),
}
# -ffp-contract=off: the host would otherwise fuse a*b+c where the card's compiler may not, and the reverse.
FLAGS = ("-std=c++20", "-O1", "-g1", "-pthread", "-Wall", "-Wno-unknown-pragmas", "-ffp-contract=off")
ORDERS = {"forward": 0, "reverse": 1, "shuffled": 2}
EXIT_MISUSE, EXIT_DEADLOCK, EXIT_RACE = 96, 97, 66


class SimtError(AssertionError):
    """A kernel did what a card forbids; the message is the emulator's or the sanitizer's report."""


class Misuse(SimtError):
    """A launch no card accepts, or warp operations whose lanes disagree."""


class Deadlock(SimtError):
    """A barrier or shuffle that not every thread reaches."""


class DataRace(SimtError):
    """ThreadSanitizer's finding."""


class MemoryFault(SimtError):
    """AddressSanitizer's or UndefinedBehaviorSanitizer's finding."""


class Pointer(ctypes.Structure):
    """The type of a pointer field in an arguments structure; assign `pointer(buffer)`."""

    _fields_ = [("key", ctypes.c_uint64)]


@dataclass(eq=False)
class Buffer:
    """Device memory of exactly ``array.nbytes`` bytes, ``misalignment`` bytes past a 16-byte boundary."""

    array: np.ndarray
    misalignment: int = 0

    @classmethod
    def poisoned(cls, shape: int | tuple[int, ...], dtype: np.dtype | type, misalignment: int = 0) -> Buffer:
        """Memory nobody has written: all ones, which is NaN in every floating-point type here."""
        array = np.empty(shape, dtype)
        array.view(np.uint8).fill(0xFF) if array.ndim else array.reshape(1).view(np.uint8).fill(0xFF)
        return cls(array, misalignment)


_KEEP: dict[int, Buffer] = {}


def pointer(buffer: Buffer | None) -> Pointer:
    """A field value that the emulator replaces by the buffer's address; None is the null pointer."""
    if buffer is None:
        return Pointer(0)
    _KEEP[id(buffer)] = buffer
    return Pointer(id(buffer))


@dataclass
class Launch:
    kernel: str
    grid: int | Sequence[int]
    block: int | Sequence[int]
    arguments: ctypes.Structure
    shared_bytes: int = 0
    order: str = "forward"
    pointers: list[tuple[int, Buffer]] = field(init=False)

    def __post_init__(self) -> None:
        self.pointers = list(_pointers(type(self.arguments), bytes(self.arguments), 0))


def _pointers(kind: type, raw: bytes, base: int) -> Iterator[tuple[int, Buffer]]:
    """(offset, buffer) of every non-null Pointer inside a structure, nested structures and arrays included."""
    if kind is Pointer:
        (key,) = struct.unpack_from("<Q", raw, base)
        if key:
            yield base, _KEEP[key]
    elif issubclass(kind, ctypes.Structure):
        for name, inner, *_ in kind._fields_:
            yield from _pointers(inner, raw, base + getattr(kind, name).offset)
    elif issubclass(kind, ctypes.Array):
        for i in range(kind._length_):
            yield from _pointers(kind._type_, raw, base + i * ctypes.sizeof(kind._type_))


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return tuple(sizes + (1,) * (3 - len(sizes)))  # type: ignore[return-value]


@dataclass(frozen=True)
class Program:
    path: Path
    variant: str
    template_shared: tuple[tuple[int, int], ...]

    def launch(self, kernel: str, *, timeout: float = 120.0, **how: object) -> None:
        """One launch; the buffers named in the arguments hold the results afterwards."""
        self.run([Launch(kernel, **how)], timeout=timeout)  # type: ignore[arg-type]

    def run(self, launches: Sequence[Launch], *, timeout: float = 120.0) -> None:
        """Launches in order, on the same buffers, as on one stream."""
        buffers = list({id(b): b for launch in launches for _, b in launch.pointers}.values())
        index = {id(b): i for i, b in enumerate(buffers)}
        with tempfile.TemporaryDirectory(prefix="simt-") as folder:
            request, response = Path(folder, "request"), Path(folder, "response")
            with request.open("wb") as out:
                out.write(struct.pack("<I", len(buffers)))
                for b in buffers:
                    data = np.ascontiguousarray(b.array).tobytes()
                    out.write(struct.pack("<QI", len(data), b.misalignment) + data)
                out.write(struct.pack("<I", len(self.template_shared)))
                out.writelines(struct.pack("<qQ", *entry) for entry in self.template_shared)
                out.write(struct.pack("<I", len(launches)))
                for launch in launches:
                    name, raw = launch.kernel.encode(), bytes(launch.arguments)
                    out.write(struct.pack("<I", len(name)) + name)
                    out.write(struct.pack("<6I", *_three(launch.grid), *_three(launch.block)))
                    out.write(struct.pack("<3I", launch.shared_bytes, ORDERS[launch.order], len(raw)) + raw)
                    out.write(struct.pack("<I", len(launch.pointers)))
                    for at, b in launch.pointers:
                        out.write(struct.pack("<IIQ", at, index[id(b)], 0))
            self._execute([str(self.path), str(request), str(response)], timeout)
            data, at = response.read_bytes(), 0
        for b in buffers:
            b.array = np.frombuffer(data, b.array.dtype, b.array.size, at).reshape(b.array.shape).copy()
            at += b.array.nbytes

    def _execute(self, command: list[str], timeout: float) -> None:
        environment = dict(
            os.environ,
            TSAN_OPTIONS=f"exitcode={EXIT_RACE}:halt_on_error=1:history_size=4",
            ASAN_OPTIONS="detect_leaks=0:abort_on_error=0",
            UBSAN_OPTIONS="print_stacktrace=1",
        )
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=timeout)
        if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
            # TSan of older compilers cannot live with a kernel's wide address randomisation.
            command = ["setarch", "-R", *command]
            done = subprocess.run(
                command, check=False, env=environment, capture_output=True, text=True, timeout=timeout
            )
        if done.returncode == 0:
            return
        kinds = {EXIT_MISUSE: Misuse, EXIT_DEADLOCK: Deadlock, EXIT_RACE: DataRace}
        kind = kinds.get(
            done.returncode, MemoryFault if "Sanitizer" in done.stderr or "runtime error" in done.stderr else SimtError
        )
        raise kind(f"exit {done.returncode}\n{done.stderr[-6000:]}")


def _template_shared(program: Path) -> tuple[tuple[int, int], ...]:
    """Shared arrays inside template kernels: (offset from simt::progress, bytes).

    The compiler keeps them out of the section of the other shared arrays, so they are found as unique local statics.
    """
    nm = shutil.which("nm")
    if nm is None:
        return ()
    origin, found = None, []
    for line in subprocess.run(
        [nm, "-S", str(program)], check=True, capture_output=True, text=True
    ).stdout.splitlines():
        match = re.fullmatch(r"([0-9a-f]+) ([0-9a-f]+) (\w) (\S+)", line)
        if not match:
            continue
        address, size, kind, name = int(match[1], 16), int(match[2], 16), match[3], match[4]
        if name == "_ZN4simt8progressE":
            origin = address
        if kind == "u" and re.match(r"_ZZ(?!N4simt|NK?St|St|NK?9__gnu_cxx)", name):
            found.append((address, size))
    if origin is None:
        raise RuntimeError(f"{program} has no simt::progress: was it compiled with another simt.h?")
    return tuple((address - origin, size) for address, size in found)


def cache_folder() -> Path:
    """Compiled programs, by content: .cache/simt in the checkout (ignored by git)."""
    folder = ROOT / ".cache" / "simt"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _inputs(source: Path, folders: Sequence[Path]) -> Iterator[bytes]:
    """The bytes of a source and of every file it includes by quoted name, depth first."""
    seen: set[Path] = set()

    def visit(path: Path) -> Iterator[bytes]:
        if path in seen:
            return
        seen.add(path)
        text = path.read_bytes()
        yield text
        for name in re.findall(rb'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE):
            for folder in (path.parent, *folders):
                if (folder / name.decode()).is_file():
                    yield from visit((folder / name.decode()).resolve())
                    break

    yield from visit(source)


def unavailable() -> str | None:
    """Why the emulator cannot run here, or None."""
    if COMPILER is None:
        return "no C++ compiler (g++ or clang++) on PATH"
    if not os.path.exists("/proc/self/exe"):
        return "the emulator's rendezvous uses Linux futexes"
    return None


def build(source: str | Path, kernels: Sequence[str], variant: str = "plain", defines: Sequence[str] = ()) -> Program:
    """Compiles `source`, a path below the checkout, with the emulator; raises with the compiler's message."""
    source = (ROOT / source).resolve()
    folders = [ROOT / "csrc", HERE]
    flags = [*FLAGS, *VARIANTS[variant], *(f"-D{d}" for d in defines), *(f"-I{f}" for f in folders)]
    entries = ",\n    ".join(f"SIMT_ENTRY({k})" for k in kernels)
    serve = f"simt::serve(argc, argv, {{\n    {entries}}})"
    main = f'#include "harness.h"\n#include "{source}"\nint main(int argc, char** argv) {{\n  return {serve};\n}}\n'
    digest = hashlib.sha256("\0".join([str(COMPILER), *flags, main]).encode())
    for path in (source, HERE / "harness.h"):
        for data in _inputs(path, folders):
            digest.update(data)
    program = cache_folder() / f"{source.stem}-{variant}-{digest.hexdigest()[:16]}"
    if not program.exists():
        with tempfile.TemporaryDirectory(prefix="simt-") as folder:
            Path(folder, "main.cpp").write_text(main)
            out = Path(folder, "program")
            command = [str(COMPILER), *flags, str(Path(folder, "main.cpp")), "-o", str(out)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-6000:]}")
            landing = program.with_name(f"{program.name}.{os.getpid()}")
            shutil.copy2(out, landing)
            os.replace(landing, program)
    return Program(program, variant, _template_shared(program))
