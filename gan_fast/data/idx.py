"""IDX files (Fashion-MNIST): big-endian magic 0x00 0x00 type rank, one uint32 per dimension, then bytes.

Fashion-MNIST is 60,000 + 10,000 grey images of 28x28; they are padded with black to 32x32. Its own test split is
the held-out one.
"""

from __future__ import annotations

import gzip
import os
import struct
from math import prod
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.data.errors import DataError

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
PADDED_RESOLUTION = 32
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
# The largest IDX file of this data set holds 47 MB; a gzip stream that unpacks to more is not it.
LARGEST_FILE = 1 << 28
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> Tensor:
    """The uint8 tensor in an idx or idx.gz file; DataError for anything else."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an idx file: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTE or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path} is not an idx file of bytes (it begins with {raw[:4].hex() or 'nothing'})")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    start = 4 + 4 * raw[3]
    if len(raw) - start != prod(shape):
        raise DataError(
            f"{path} says it holds {'x'.join(map(str, shape))} bytes but {len(raw) - start} follow: "
            "truncated or foreign; fetch it again"
        )
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=start).view(shape)


def fashion_folders(root: str | None) -> list[Path]:
    """Where the files may be, in the order they are looked for."""
    roots = [Path(root).expanduser()] if root else []
    if not root:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        roots = [DEBIAN_FOLDER, Path("data"), cache, cache / "torchvision"]
    return [folder for base in roots for folder in (base, base / "FashionMNIST" / "raw", base / "fashion-mnist")]


def load_fashion_mnist(split: str, root: str | None = None) -> tuple[Tensor, Tensor]:
    """Images uint8 `[N, 1, 32, 32]` and labels int64 `[N]` of "train", "test" or "all"."""
    folders = fashion_folders(root)
    if split == "all":
        parts = [load_fashion_mnist(part, root) for part in ("train", "test")]
        return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])
    stem = "train" if split == "train" else "t10k"
    names = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    for folder in folders:
        found = [_plain_or_gz(folder / name) for name in names]
        if found[0] is not None and found[1] is not None:
            return _padded(found[0], found[1])
    looked = ", ".join(str(folder) for folder in folders)
    raise DataError(
        f"Fashion-MNIST is not here: looked for {names[0]}[.gz] and {names[1]}[.gz] in {looked}. Install Debian's "
        "package (apt install dataset-fashion-mnist), or give the folder that holds them: fashion-mnist:/path/to/folder"
    )


def _plain_or_gz(path: Path) -> Path | None:
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def _padded(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{images_path} and {labels_path} hold {list(images.shape)} and {list(labels.shape)}; "
            "expected [N, 28, 28] images and [N] labels"
        )
    if len(labels) and int(labels.max()) >= len(CLASSES):
        raise DataError(f"{labels_path} holds label {int(labels.max())}; expected 0..{len(CLASSES) - 1}")
    return F.pad(images, (2, 2, 2, 2)).unsqueeze(1), labels.to(torch.int64)
