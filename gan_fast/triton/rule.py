"""Which of two implementations of a product runs: the Triton kernel or the shared convolution. Measured, not guessed.

At the first use of a (card, product, shape, dtype, memory order) both run on the tensors at hand, alternately and timed
by the card's own events; the faster one serves from then on. What was measured stays in the process and in a file
beside the NVRTC cache, one for each card and each version of Triton, torch, cuDNN and these kernels, written
atomically: with that file every run chooses alike. Batches share an entry up to the next power of two.

Nothing is compiled or measured while a CUDA graph is captured: a kernel that is remembered as the faster one and has
run in this process serves, else the shared convolution; run a step before capturing it. Tracing (`torch.compile`) sees
one op and no choice at all.

    GAN_FAST_MODULATED_CONV=auto      the rule above
    GAN_FAST_MODULATED_CONV=triton    the kernel always; where it fails to compile, that is an error
    GAN_FAST_MODULATED_CONV=shared    the shared convolution always

A kernel that fails to compile is said once, and the shared convolution serves that shape.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import math
import os
import statistics
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from gan_fast import nvrtc

T = TypeVar("T")
VARIABLE = "GAN_FAST_MODULATED_CONV"
MODES = ("auto", "triton", "shared")
WARM_UP, ROUNDS = 3, 7
_PREFIX = "modulated_convolution"
_lock = threading.RLock()
_tables: dict[Path, dict[str, Times]] = {}
_loaded: set[tuple[Path, str, Hashable]] = set()
_failed: dict[tuple[Path, str], str] = {}
_said: set[str] = set()
_settled: dict[tuple[str | None, Hashable], bool] = {}
_MOST = 4096  # settled kinds kept: shapes without end must not fill memory


@dataclass(frozen=True)
class Times:
    """Medians in microseconds."""

    triton: float
    shared: float

    @property
    def faster(self) -> str:
        return "triton" if self.triton < self.shared else "shared"


@dataclass(frozen=True)
class Choice:
    """A line of what `gan-fast doctor` prints."""

    card: str
    key: str
    times: Times


def mode() -> str:
    """What the environment asks for."""
    value = os.environ.get(VARIABLE, "auto") or "auto"
    if value not in MODES:
        raise ValueError(f"{VARIABLE}={value!r}; expected one of {', '.join(MODES)}")
    return value


def say_once(message: str) -> None:
    """A warning, once in a process."""
    if message not in _said:
        _said.add(message)
        warnings.warn(message, stacklevel=3)


@functools.cache
def _versions() -> str:
    """A digest of everything a measurement depends on besides the card."""
    import triton

    texts = [torch.__version__, str(torch.backends.cudnn.version()), triton.__version__]
    texts += [
        (Path(__file__).parent / f"{name}.py").read_text()
        for name in ("modulated_convolution", "plans", "launch", "shared")
    ]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@functools.cache
def path_of(card: str) -> Path:
    """Where the measurements of a card are kept."""
    plain = "".join(c if c.isalnum() else "-" for c in card)
    return nvrtc.cache_folder() / f"{_PREFIX}-{plain}-{_versions()}.json"


def key_of(product: str, batch: int, *facts: object) -> str:
    """One line that tells a class of calls; batches count up to the next power of two."""
    return " ".join([product, f"n{1 << max(batch - 1, 0).bit_length()}", *map(str, facts)])


def read(path: Path) -> dict[str, Times]:
    """The measurements in a file; none where there is no file or a damaged one, which is then measured anew."""
    try:
        entries = json.loads(path.read_text())["microseconds"]
        found = {str(key): Times(float(t), float(s)) for key, (t, s) in entries.items()}
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {key: times for key, times in found.items() if math.isfinite(times.triton + times.shared)}


def _write(path: Path, card: str, table: dict[str, Times]) -> None:
    """Writes a file so that other processes see all of it or nothing."""
    entries = {key: [round(t.triton, 2), round(t.shared, 2)] for key, t in sorted(table.items())}
    text = json.dumps({"card": card, "columns": ["triton", "shared"], "microseconds": entries}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w") as out:
            out.write(text + "\n")
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def remember(path: Path, card: str, key: str, times: Times) -> Times:
    """Adds to the file what another process has not added meanwhile; what is there first stays, for all."""
    with _lock:
        merged = {key: times, **_tables.get(path, {}), **read(path)}
        _tables[path] = merged
        try:
            _write(path, card, merged)
        except OSError as error:
            say_once(
                f"gan_fast could not keep which modulated convolution is faster ({error}); every process will measure "
                "it again. Set GAN_FAST_CACHE to a folder that can be written"
            )
        return merged[key]


def _table(path: Path) -> dict[str, Times]:
    if path not in _tables:
        _tables[path] = read(path)
    return _tables[path]


def measure(kernel: Callable[[], Any], shared: Callable[[], Any]) -> Times:
    """Medians of alternating runs on the current stream."""

    def timed(run: Callable[[], Any]) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        return begin, end

    for _ in range(WARM_UP):
        kernel()
        shared()
    pairs = [(timed(kernel), timed(shared)) for _ in range(ROUNDS)]
    torch.cuda.current_stream().synchronize()
    elapsed = [[begin.elapsed_time(end) * 1e3 for begin, end in pair] for pair in pairs]
    return Times(*(statistics.median(column) for column in zip(*elapsed, strict=True)))


def run(card: str, key: str, exact: Hashable, kernel: Callable[[], T], shared: Callable[[], T], capturing: bool) -> T:
    """Runs the one of the two that the rule names.

    Args:
        card: the name of the device.
        key: the class of calls that shares a measurement (`key_of`).
        exact: what tells the compiled kernel of this call from others of its class.
        kernel, shared: the two implementations, bound to their arguments.
        capturing: whether a CUDA graph is being captured.
    """
    wanted = mode()
    if wanted == "auto":
        wanted = "triton" if _prefers_kernel(card, key, exact, kernel, shared, capturing) else "shared"
    return kernel() if wanted == "triton" else shared()


def decision(card: str, key: str, exact: Hashable) -> bool | None:
    """Whether the kernel serves such calls from now on, or None where the next one may still change that."""
    wanted = mode()
    if wanted != "auto":
        return wanted == "triton"
    path = path_of(card)
    if (path, key) in _failed:
        return False
    times = _table(path).get(key)
    if times is None or (times.faster == "triton" and (path, key, exact) not in _loaded):
        return None
    return times.faster == "triton"


def settle(kind: Hashable, fused: bool | None) -> None:
    """Keeps a decision for calls of exactly this kind (`plans.kind_of`), which then need no key and no table."""
    if kind is not None and fused is not None:
        if len(_settled) >= _MOST:
            _settled.clear()
        _settled[os.environ.get(VARIABLE), kind] = fused


def settled(kind: Hashable) -> bool | None:
    """What `settle` was told under the present setting of the environment."""
    return _settled.get((os.environ.get(VARIABLE), kind))


def _prefers_kernel(
    card: str, key: str, exact: Hashable, kernel: Callable[[], Any], shared: Callable[[], Any], capturing: bool
) -> bool:
    path = path_of(card)
    if (path, key) in _failed:
        return False
    times = _table(path).get(key)
    loaded = (path, key, exact) in _loaded
    if times is not None and (loaded or times.faster == "shared"):
        return times.faster == "triton"
    if capturing:  # loading a kernel and timing are both out of the question
        return False
    with _lock:
        if not _runs(path, key, kernel):
            return False
        _loaded.add((path, key, exact))
        times = _table(path).get(key) or remember(path, card, key, measure(kernel, shared))
    return times.faster == "triton"


def _runs(path: Path, key: str, kernel: Callable[[], Any]) -> bool:
    """Whether the kernel compiles; where it does not, that is said, and the shared convolution serves from now on."""
    from triton.errors import TritonError

    try:
        kernel()
        return True
    except (TritonError, subprocess.CalledProcessError) as error:
        reason = " ".join(str(error).split())
    except RuntimeError as error:
        if "C compiler" not in str(error):  # which Triton needs for the host side of a launch
            raise
        reason = str(error)
    _failed[path, key] = reason
    say_once(
        f"gan_fast: the Triton kernel for {key} does not run here ({reason}); the shared convolution serves instead"
    )
    return False


def choices() -> list[Choice]:
    """Everything remembered under the present versions, of every card seen by this cache folder."""
    found: list[Choice] = []
    if importlib.util.find_spec("triton") is None:
        return found
    for path in sorted(nvrtc.cache_folder().glob(f"{_PREFIX}-*-{_versions()}.json")):
        card = json.loads(path.read_text()).get("card", "?") if read(path) else "?"
        found += [Choice(card, key, times) for key, times in sorted(read(path).items())]
    return found


def forget() -> None:
    """Forgets what this process knows; the files stay."""
    with _lock:
        _tables.clear()
        _loaded.clear()
        _failed.clear()
        _said.clear()
        _settled.clear()
        path_of.cache_clear()
