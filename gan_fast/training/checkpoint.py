"""Checkpoints: a folder of safetensors files and one JSON, whole or not there at all.

    FOLDER/generator.safetensors  critic.safetensors  ema.safetensors  optimizers.safetensors  random.safetensors
    FOLDER/state.json             counters, recipe, data position; size and sha256 of every file above

Written into a hidden folder beside the final one, flushed to disk, then renamed: a process killed at any moment
leaves either the finished folder or the hidden one, which the next save removes. A run's `latest` file names the
newest finished folder and is itself replaced atomically, last. So is `best`, which names the one whose samples were
judged best and, on its second line, says how. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

FORMAT = "gan_fast checkpoint"
VERSION = 1
STATE_FILE = "state.json"
LATEST_FILE = "latest"
BEST_FILE = "best"
_HIDDEN = ".partial-"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: the message names the file and the reason."""


class Checkpoint(NamedTuple):
    """tensors: file stem to name to tensor, on the CPU. state: what JSON can hold."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` by `content` atomically and durably."""
    partial = path.with_name(_HIDDEN + path.name)
    _write_through(partial, content)
    os.replace(partial, path)
    _sync_folder(path.parent)


def save(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint to `folder`, replacing a checkpoint that is there. `metadata` goes into every header."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not (folder / STATE_FILE).is_file():
        raise CheckpointError(f"{folder} exists and is not a gan_fast checkpoint: choose another path")
    partial = folder.with_name(_HIDDEN + folder.name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    files = {}
    for stem, group in tensors.items():
        # safetensors stores the logical order of elements, so the memory format is dropped here and
        # taken from the parameters on the way back.
        content = tensors_to_bytes({k: v.detach().cpu().contiguous() for k, v in group.items()}, dict(metadata or {}))
        files[f"{stem}.safetensors"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        _write_through(partial / f"{stem}.safetensors", content)
    description = {"format": FORMAT, "version": VERSION, "files": files, **state}
    _write_through(partial / STATE_FILE, json.dumps(description, indent=1, allow_nan=False).encode())
    _sync_folder(partial)
    if folder.exists():
        # Two renames: a kill between them leaves the old checkpoint under the hidden name `.partial-old-...`.
        old = folder.with_name(f"{_HIDDEN}old-{folder.name}")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old)
    else:
        os.replace(partial, folder)
    _sync_folder(folder.parent)


def load(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint; CheckpointError names what is missing, truncated, altered or foreign."""
    state = read_state(folder)
    tensors = {name.removesuffix(".safetensors"): _load_group(folder, name, state) for name in state["files"]}
    return Checkpoint(tensors, state)


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint, checked for format and version."""
    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a gan_fast checkpoint: it has no {STATE_FILE}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by gan_fast")
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {state.get('version')!r} and this gan_fast reads {VERSION}: "
            "use the gan_fast that wrote it"
        )
    return state


def load_group(folder: Path, stem: str) -> dict[str, Tensor]:
    """One safetensors file of a checkpoint, verified."""
    return _load_group(folder, f"{stem}.safetensors", read_state(folder))


def _load_group(folder: Path, name: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    path = folder / name
    expected = state["files"].get(name)
    if expected is None:
        raise CheckpointError(f"{folder} holds no {name}")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing from the checkpoint") from None
    if len(content) != expected["bytes"]:
        raise CheckpointError(f"{path} is truncated: {len(content)} bytes where {expected['bytes']} were written")
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise CheckpointError(f"{path} is damaged: its sha256 is not the one that was written")
    return load_tensors(content)


def point_latest(run: Path, folder: Path) -> None:
    """Make `folder`, inside `run`, the checkpoint that `latest(run)` finds."""
    write_file(run / LATEST_FILE, f"{folder.relative_to(run).as_posix()}\n".encode())


def point_best(run: Path, folder: Path, judged: Mapping[str, Any]) -> None:
    """Make `folder`, inside `run`, the best checkpoint, and say how it was judged."""
    content = f"{folder.relative_to(run).as_posix()}\n{json.dumps(judged, allow_nan=False)}\n"
    write_file(run / BEST_FILE, content.encode())


def read_best(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """The best checkpoint of a run and how it was judged, or None where none was judged or it is no longer there."""
    pointer = run / BEST_FILE
    if not pointer.is_file():
        return None
    try:
        name, judged = pointer.read_text(encoding="utf-8").splitlines()
        folder, said = run / name, json.loads(judged)
    except ValueError as error:
        raise CheckpointError(f"{pointer} is damaged ({error}): remove it to go on without") from None
    return (folder, said) if (folder / STATE_FILE).is_file() else None


def latest(path: Path) -> Path:
    """The checkpoint folder meant by `path`: a checkpoint itself, the newest one of a run folder, or what RUN/best or
    RUN/latest names."""
    if (path / STATE_FILE).is_file():
        return path
    pointer = path / LATEST_FILE
    if path.name in (LATEST_FILE, BEST_FILE) and not path.is_dir():
        pointer, path = path, path.parent
        if pointer.name == BEST_FILE and not pointer.exists() and (path / LATEST_FILE).is_file():
            raise CheckpointError(f"{path} has no best checkpoint: it was not trained with --evaluate-kimg")
    if not pointer.is_file():
        if not path.exists():
            raise CheckpointError(f"{path} does not exist")
        raise CheckpointError(f"{path} is neither a run folder (no {LATEST_FILE}) nor a checkpoint (no {STATE_FILE})")
    name = pointer.read_text(errors="replace").partition("\n")[0].strip()
    folder = path / name
    if not name or not folder.is_dir():
        raise CheckpointError(f"{pointer} names {name!r}, which is not a folder of this run")
    return folder


def prune(folder: Path, keep: int, spared: Collection[Path] = ()) -> None:
    """Remove all but the `keep` newest checkpoints of `folder` (names sort by age), and what killed saves left.

    Those of `spared` stay whatever their age.
    """
    for entry in folder.glob(f"{_HIDDEN}*"):
        shutil.rmtree(entry)
    for entry in sorted(path for path in folder.iterdir() if (path / STATE_FILE).is_file())[:-keep]:
        if entry in spared:
            continue
        # Hidden first, so that no half-removed folder ever looks like a checkpoint.
        hidden = entry.with_name(_HIDDEN + entry.name)
        os.replace(entry, hidden)
        shutil.rmtree(hidden)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments and step counts as `index.name`; the hyper-parameters are the recipe's."""
    return {
        f"{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load what `optimizer_tensors` gave, in the memory format of the parameters.

    Fused optimisers walk parameter and moments as flat memory: moments loaded in another memory format than
    their parameter would be applied to the wrong weights, without an error.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape and value.ndim > 0:
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _write_through(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # A rename is durable once its folder is; Windows has no such call and needs none.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
