"""Networks in safetensors files: `G.safetensors`, `D.safetensors`, `G_ema.safetensors`.

A file holds the state dict of one network and, in its metadata, what it is and the arguments that build it:

    format = "gan_fast stylegan2",   kind = "generator" or "discriminator",   init_kwargs = JSON
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_fast.models.stylegan2.discriminator import Discriminator
from gan_fast.models.stylegan2.synthesis import Generator

FORMAT = "gan_fast stylegan2"
NAMES = ("G", "D", "G_ema")
_KINDS: dict[str, type[nn.Module]] = {"generator": Generator, "discriminator": Discriminator}


class WeightsError(ValueError):
    """A file that holds no StyleGAN2 network of this package: the message names it and says why."""


def save(path: str | Path, network: Generator | Discriminator) -> None:
    """Write a network to a `.safetensors` file, which is replaced in one step or not at all."""
    from safetensors.torch import save as to_bytes

    path = Path(path)
    kind = next(name for name, cls in _KINDS.items() if isinstance(network, cls))
    metadata = {"format": FORMAT, "kind": kind, "init_kwargs": json.dumps(network.init_kwargs)}
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    content = to_bytes(tensors, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_network(path: str | Path) -> Generator | Discriminator:
    """The network in one `.safetensors` file, on the CPU in evaluation mode."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} is not a file")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("kind") not in _KINDS:
                raise WeightsError(f"{path} holds no StyleGAN2 network: convert a .pkl with `gan-fast convert`")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from None
    try:
        return build(metadata["kind"], json.loads(metadata["init_kwargs"]), tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} does not fit the network it describes: {error}") from error


def load(folder: str | Path) -> dict[str, Generator | Discriminator]:
    """All networks of a folder, by name (G, D, G_ema), on the CPU in evaluation mode."""
    folder = Path(folder)
    found = {name: folder / f"{name}.safetensors" for name in NAMES if (folder / f"{name}.safetensors").is_file()}
    if not found:
        raise WeightsError(f"{folder} holds none of {', '.join(f'{name}.safetensors' for name in NAMES)}")
    return {name: load_network(path) for name, path in found.items()}


def load_generator(path: str | Path) -> Generator:
    """The generator in a `.safetensors` file, or of a folder: the averaged one (G_ema) where there is one, else G."""
    path = Path(path)
    if path.is_dir():
        found = [path / f"{name}.safetensors" for name in ("G_ema", "G") if (path / f"{name}.safetensors").is_file()]
        if not found:
            raise WeightsError(f"{path} holds neither G_ema.safetensors nor G.safetensors")
        path = found[0]
    network = load_network(path)
    if not isinstance(network, Generator):
        raise WeightsError(f"{path} holds a discriminator, and a generator is wanted")
    return network


def build(kind: str, init_kwargs: dict[str, Any], tensors: dict[str, Tensor]) -> Generator | Discriminator:
    """A frozen network in evaluation mode with these weights, which become its own.

    It is first built without memory, so that settings and shapes are checked before anything is allocated: TypeError,
    ValueError or RuntimeError where they do not fit.
    """
    with torch.device("meta"):
        network = _KINDS[kind](**init_kwargs)
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(False).eval()  # type: ignore[return-value]
