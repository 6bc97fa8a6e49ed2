"""NVIDIA's network pickles (StyleGAN2-ADA and StyleGAN3 code bases, StyleGAN2 networks) to safetensors.

    {"G": network, "D": network, "G_ema": network, ...},   network = reconstruct({class_name, module_src, state, ...})

Such a pickle carries the source code of its networks, to be run on loading. Here nothing of it is: the pickle is read
as data (`pickles`), of a network its class name, its constructor's arguments and its tensors are taken, and those go
into this package's network of that kind with a strict check of every name and shape.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_fast.models.stylegan2 import weights
from gan_fast.models.stylegan2.discriminator import Discriminator
from gan_fast.models.stylegan2.pickles import PERSISTENT, Call, Global, PickleError, read
from gan_fast.models.stylegan2.synthesis import Generator

_NETWORK = "torch_utils.persistence._reconstruct_persistent_obj"
_STORAGE = "torch.storage._load_from_bytes"
_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETER = "torch._utils._rebuild_parameter"
_DICTS = ("collections.OrderedDict", "dnnlib.EasyDict", "dnnlib.util.EasyDict")
_SETS = ("builtins.set", "__builtin__.set")
# Named by augmentation pipes and training settings that lie beside the networks. They are read over.
_READ_OVER = (
    "numpy.ndarray",
    "numpy.dtype",
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    ),
    "_codecs.encode",
    *(f"torch.{kind}" for kind in ("float16", "float32", "float64", "int32", "int64", "bool", "Size", "device")),
)
ALLOWED = frozenset([_NETWORK, _STORAGE, *_TENSOR, _PARAMETER, *_DICTS, *_SETS, *_READ_OVER])

_STORAGES = {
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.ByteStorage": torch.uint8,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.BoolStorage": torch.bool,
}
_MAGIC = 0x1950A86A20F9469CFC6C

_KINDS = {"Generator": "generator", "Discriminator": "discriminator"}
_POSITIONAL = {
    "generator": ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"),
    "discriminator": ("c_dim", "img_resolution", "img_channels"),
}
# No settings of a real network come near; a hostile file could nest them without end.
_MOST_SETTINGS = 10_000
_MOST_LAYERS = 64
_MOST_MODULES = 2_000


def convert(source: str | Path, folder: str | Path) -> dict[str, Path]:
    """Write the networks of a pickle to `folder` as `G.safetensors`, `D.safetensors` and `G_ema.safetensors`.

    Returns the files by name. `PickleError` for a pickle that asks for anything that is no part of a StyleGAN2
    network, or whose networks are of another kind; then nothing is written, and in no case is anything run.
    """
    networks = read_networks(source)
    paths = {name: Path(folder) / f"{name}.safetensors" for name in networks}
    for name, network in networks.items():
        weights.save(paths[name], network)
    return paths


def read_networks(source: str | Path) -> dict[str, Generator | Discriminator]:
    """The networks of a pickle, by name, on the CPU in evaluation mode. Raises as `convert` does."""
    content = Path(source).read_bytes()
    if content[:2] == b"PK":
        raise PickleError(f"{source} is a zip archive (of torch.save?), and a network pickle is wanted")
    data = read(io.BytesIO(content), ALLOWED)
    if isinstance(data, Call) and data.name in _DICTS:
        data = dict(data.items)
    if not isinstance(data, dict):
        raise PickleError(f"{source} holds a {type(data).__name__}, expected a dictionary with G, D or G_ema")
    found = {name: data[name] for name in weights.NAMES if data.get(name) is not None}
    if not found:
        raise PickleError(
            f"{source} holds none of {', '.join(weights.NAMES)}: its keys are {', '.join(map(str, data))}"
        )
    return {name: _network(name, value) for name, value in found.items()}


def _network(name: str, value: Any) -> Generator | Discriminator:
    described = _persistent(name, value)
    class_name = described["class_name"]
    kind = _KINDS.get(class_name)
    if kind is None:
        raise PickleError(f"{name} is a {class_name}, expected a StyleGAN2 Generator or Discriminator")
    tensors = dict(_tensors(described["state"], "", [_MOST_MODULES]))
    marker = "synthesis.b4.const" if kind == "generator" else "b4.fc.weight"
    if marker not in tensors:
        raise PickleError(f"{name} is a {class_name} of another family: it has no {marker}, as StyleGAN2's have")
    settings = _settings(name, kind, described["state"])
    try:
        return weights.build(kind, settings, tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PickleError(f"{name} does not fit StyleGAN2's {class_name}: {error}") from error


def _persistent(name: str, value: Any) -> dict[str, Any]:
    """Class name and state (the attributes) of a network as the persistence format holds it."""
    meta = value.args[0] if isinstance(value, Call) and value.name == _NETWORK and len(value.args) == 1 else None
    meta = _dictionary(meta)
    if meta is None or meta.get("type") != "class" or not isinstance(meta.get("class_name"), str):
        raise PickleError(f"{name} is not in the persistence format of torch_utils")
    # The state is in the description; a copy made by an older version may set it afterwards.
    state = _dictionary(meta.get("state")) or _dictionary(value.state)
    if state is None:
        raise PickleError(f"{name} has no state")
    return {"class_name": meta["class_name"], "state": state}


def _dictionary(value: Any) -> dict[Any, Any] | None:
    """A dict, or what one of the dictionary classes would have made; else None."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Call) and value.name in _DICTS and value.state is None:
        pairs = list(value.items)
        for argument in value.args:  # OrderedDict([[key, value], ...])
            if not isinstance(argument, list) or not all(
                isinstance(p, (list, tuple)) and len(p) == 2 for p in argument
            ):
                return None
            pairs = [(p[0], p[1]) for p in argument if isinstance(p[0], str)] + pairs
        return dict(pairs)
    return None


def _tensors(state: dict[Any, Any], prefix: str, budget: list[int], depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The state dict: parameters and persistent buffers of a module and of those in it. `budget` counts modules down:
    one that is shared counts in each place, so that no file can make the walk long."""
    budget[0] -= 1
    if depth > 8 or budget[0] < 0:
        raise PickleError("refused: more modules, or nested deeper, than in any StyleGAN2 network")
    temporary = state.get("_non_persistent_buffers_set", set())
    if isinstance(temporary, Call) and temporary.name in _SETS:
        temporary = set(temporary.args[0]) if temporary.args else set()
    for group in ("_parameters", "_buffers"):
        for key, value in (_dictionary(state.get(group)) or {}).items():
            if value is not None and not (group == "_buffers" and key in temporary):
                yield f"{prefix}{key}", _tensor(f"{prefix}{key}", value)
    for key, value in (_dictionary(state.get("_modules")) or {}).items():
        if value is not None:
            inner = _persistent(f"{prefix}{key}", value)["state"]
            yield from _tensors(inner, f"{prefix}{key}.", budget, depth + 1)


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Call) and value.name == _PARAMETER and value.args:
        value = value.args[0]
    if not (isinstance(value, Call) and value.name in _TENSOR and len(value.args) >= 4):
        raise PickleError(f"{name} is not a tensor")
    storage, offset, size, stride = value.args[:4]
    sizes = [*size, *stride, offset] if isinstance(size, tuple) and isinstance(stride, tuple) else [None]
    if not all(type(number) is int and number >= 0 for number in sizes) or len(size) != len(stride):
        raise PickleError(f"{name} has sizes that are no sizes")
    flat = _storage(name, storage)
    if math.prod(size) > flat.numel():
        raise PickleError(f"{name} claims {math.prod(size)} numbers and its storage has {flat.numel()}")
    try:
        return flat.as_strided(size, stride, offset).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    except RuntimeError as error:
        raise PickleError(f"{name} reaches past its storage: {error}") from None


def _storage(name: str, value: Any) -> Tensor:
    """The numbers of a storage, flat. They are kept as the bytes of a torch.save of their own."""
    if not (isinstance(value, Call) and value.name == _STORAGE and len(value.args) == 1):
        raise PickleError(f"{name} has no storage")
    (content,) = value.args
    if isinstance(content, Call) and content.name == "_codecs.encode":  # bytes, as protocols 0 to 2 write them
        if len(content.args) != 2 or not isinstance(content.args[0], str) or content.args[1] != "latin1":
            raise PickleError(f"{name} has a storage in an unknown encoding")
        content = content.args[0].encode("latin1", "replace")
    if not isinstance(content, bytes):
        raise PickleError(f"{name} has a storage of {type(content).__name__}, expected bytes")
    try:
        return _saved_storage(io.BytesIO(content))
    except PickleError as error:
        raise PickleError(f"the storage of {name}: {error}") from None


def _saved_storage(file: io.BytesIO) -> Tensor:
    """What torch.save wrote of one storage, without a zip around it, as it does inside of pickles:

    magic number, version, machine, storage, [key]: five pickles; then the count of numbers in 8 bytes, and the numbers.
    """
    magic, version, machine, record, keys = (read(file, _STORAGES, persistent=True) for _ in range(5))
    if (magic, version) != (_MAGIC, 1001) or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise PickleError("not written by torch.save on a little-endian machine")
    identity = record.args[0] if isinstance(record, Call) and record.name == PERSISTENT else None
    # ("storage", type, key, device, count, view of another storage)
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or any(identity[5:]):
        raise PickleError("refused: no plain storage")
    what, kind, key, _, count = identity[:5]
    if what != "storage" or not isinstance(kind, Global) or keys != [key] or type(count) is not int:
        raise PickleError("refused: no plain storage")
    dtype = _STORAGES[kind.name]
    (written,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
    numbers = bytearray(file.read())
    if written != count or count < 0 or len(numbers) < count * dtype.itemsize:
        raise PickleError(f"it should have {count} numbers, and {len(numbers)} bytes are there")
    return torch.frombuffer(numbers, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _settings(name: str, kind: str, state: dict[Any, Any]) -> dict[str, Any]:
    """The constructor's arguments. What a saved network had as its default is read from its layers, since the two code
    bases differ: precision, clamp and the rate of w_avg."""
    budget = [_MOST_SETTINGS]
    settings = _plain(f"{name}'s arguments", state.get("_init_kwargs"), budget)
    args = _plain(f"{name}'s arguments", list(state.get("_init_args") or ()), budget)
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise PickleError(f"{name} does not tell its constructor's arguments")
    if len(args) > len(_POSITIONAL[kind]):
        raise PickleError(f"{name} has more positional arguments than StyleGAN2's {kind}")
    settings = {**dict(zip(_POSITIONAL[kind], args, strict=False)), **settings}
    mapping = settings.get("mapping_kwargs") or {}
    if (
        isinstance(mapping, dict)
        and isinstance(mapping.get("num_layers"), int)
        and mapping["num_layers"] > _MOST_LAYERS
    ):
        raise PickleError(f"{name} claims {mapping['num_layers']} mapping layers")
    synthesis = state if kind == "discriminator" else _child(state, "synthesis")
    blocks = [_child(synthesis, key) for key in (_dictionary(synthesis.get("_modules")) or {}) if key[:1] == "b"]
    halves = sum(1 for block in blocks if block.get("use_fp16") is True)
    clamp = _child(blocks[-1 if kind == "generator" else 0], "conv1").get("conv_clamp") if blocks else None
    if kind == "discriminator":
        settings.setdefault("num_fp16_res", halves)
        settings.setdefault("conv_clamp", clamp)
        return settings
    inner = settings.setdefault("synthesis_kwargs", {})
    inner.setdefault("num_fp16_res", halves)
    inner.setdefault("conv_clamp", clamp)
    settings.setdefault("mapping_kwargs", {}).setdefault(
        "w_avg_beta", _child(state, "mapping").get("w_avg_beta", 0.995)
    )
    return settings


def _child(state: dict[Any, Any], name: str) -> dict[Any, Any]:
    return _persistent(name, (_dictionary(state.get("_modules")) or {}).get(name))["state"]


def _plain(name: str, value: Any, budget: list[int], depth: int = 0) -> Any:
    """What JSON can hold. `budget` counts down over all values."""
    budget[0] -= 1
    if budget[0] < 0 or depth > 16:
        raise PickleError(f"{name} hold more than any StyleGAN2 network's")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(name, entry, budget, depth + 1) for entry in value]
    dictionary = _dictionary(value)
    if dictionary is None:
        what = value.name if isinstance(value, (Call, Global)) else type(value).__name__
        raise PickleError(f"{name} hold a {what}, expected numbers, text, lists and dictionaries")
    return {key: _plain(name, entry, budget, depth + 1) for key, entry in dictionary.items()}
