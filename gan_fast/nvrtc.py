"""Compiles embedded CUDA source to a cubin with NVRTC, for cards the embedded device code has no image for.

NVRTC comes with every CUDA build of PyTorch; NVIDIA's `cuda-bindings` package calls it. A cubin is cached under
`$GAN_FAST_CACHE`, else `$XDG_CACHE_HOME/gan_fast`, else `~/.cache/gan_fast`: one file per source, architecture,
options and NVRTC version, written atomically, with a checksum so that a damaged file is compiled anew and not loaded.

The extension calls `compile` at the first use of an op on such a card; nothing else in gan_fast needs this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

# Unlike nvcc, NVRTC takes a lambda inside device code for a host function unless told otherwise.
OPTIONS = ("--std=c++17", "--device-as-default-execution-space")

_MAGIC = b"gan_fast cubin 1\n"
_DIGEST_BYTES = 32


class CompileError(RuntimeError):
    """NVRTC refused the source; the message carries its log."""


def cache_folder() -> Path:
    """Where cubins are kept; the folder may not exist yet."""
    given = os.environ.get("GAN_FAST_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gan_fast"


def _bindings() -> Any:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise RuntimeError(
            "gan_fast has no embedded device code for this card and must compile it, which needs NVIDIA's "
            f"cuda-bindings ({error}). Run: pip install 'gan-fast[nvrtc]'"
        ) from error
    return nvrtc


def _call(nvrtc: Any, function: str, *arguments: Any) -> Any:
    """What one NVRTC function returns beside its status; raises on any other status than success."""
    try:
        status, *values = getattr(nvrtc, function)(*arguments)
    except RuntimeError as error:  # cuda-bindings found no libnvrtc to load
        raise RuntimeError(
            f"gan_fast must compile device code for this card, and NVRTC could not be loaded ({error}). "
            "CUDA builds of PyTorch bring it; otherwise run: pip install nvidia-cuda-nvrtc"
        ) from error
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"{function} failed with {status.name}")
    return values[0] if len(values) == 1 else tuple(values)


def version() -> tuple[int, int]:
    """The version of the NVRTC that would compile, such as (13, 0)."""
    major, minor = _call(_bindings(), "nvrtcVersion")
    return major, minor


def _build(name: str, source: str, arch: str) -> bytes:
    nvrtc = _bindings()
    program = _call(nvrtc, "nvrtcCreateProgram", source.encode(), f"{name}.cu".encode(), 0, [], [])
    try:
        options = [f"--gpu-architecture={arch}".encode(), *(o.encode() for o in OPTIONS)]
        try:
            _call(nvrtc, "nvrtcCompileProgram", program, len(options), options)
        except CompileError as error:
            log = bytearray(_call(nvrtc, "nvrtcGetProgramLogSize", program))
            _call(nvrtc, "nvrtcGetProgramLog", program, log)
            text = bytes(log).rstrip(b"\0").decode(errors="replace")
            raise CompileError(f"NVRTC {version()} could not compile {name} for {arch}: {error}\n{text}") from None
        cubin = bytearray(_call(nvrtc, "nvrtcGetCUBINSize", program))
        _call(nvrtc, "nvrtcGetCUBIN", program, cubin)
        return bytes(cubin)
    finally:
        _call(nvrtc, "nvrtcDestroyProgram", program)


def _read(path: Path) -> bytes | None:
    """The cubin in a cache file; None where there is no file, or one that is truncated or not ours."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    head = len(_MAGIC) + _DIGEST_BYTES
    cubin = data[head:]
    whole = data[: len(_MAGIC)] == _MAGIC and data[len(_MAGIC) : head] == hashlib.sha256(cubin).digest()
    return cubin if whole and cubin else None


def _write(path: Path, cubin: bytes) -> None:
    """Writes a cache file so that other processes see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(_MAGIC + hashlib.sha256(cubin).digest() + cubin)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def compile(name: str, source: str, major: int, minor: int) -> bytes:
    """The cubin of `source` (self-contained CUDA C++) for compute capability ``major.minor``, compiled once and cached.

    Args:
        name: the op, for messages and the cache file's name.
        source: CUDA source without includes.
        major, minor: compute capability, such as 9, 0.

    Raises:
        CompileError: NVRTC does not compile the source, or does not know the architecture.
        RuntimeError: cuda-bindings or NVRTC itself is missing; the message says what to install.
    """
    arch = f"sm_{major}{minor}"
    key = "\0".join([name, source, arch, *map(str, version()), *OPTIONS])
    path = cache_folder() / f"{name}-{arch}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.cubin"
    cubin = _read(path)
    if cubin is None:
        cubin = _build(name, source, arch)
        try:
            _write(path, cubin)
        except OSError as error:
            import warnings

            warnings.warn(
                f"gan_fast could not keep the device code it compiled ({error}); every process will compile it again. "
                "Set GAN_FAST_CACHE to a folder that can be written",
                stacklevel=2,
            )
    return cubin
