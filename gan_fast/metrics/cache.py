"""Where figures of real data are kept between runs: safetensors files, keyed by content, replaced atomically.

$GAN_FAST_CACHE, else $XDG_CACHE_HOME/gan_fast, else ~/.cache/gan_fast
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

from torch import Tensor


def cache_folder() -> Path:
    if given := os.environ.get("GAN_FAST_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gan_fast"


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and metadata saved as `name`, or None. A damaged file is named in a warning and made anew."""
    from safetensors import SafetensorError, safe_open

    path = cache_folder() / "metrics" / f"{name}.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {key: file.get_tensor(key).clone() for key in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        warnings.warn(f"{path} is damaged ({error}): its figures are computed again", stacklevel=2)
        return None


def write(name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Save for the next run; a folder that cannot be written costs time, not the result, and is said."""
    from safetensors.torch import save

    folder = cache_folder() / "metrics"
    blob = save({key: value.contiguous() for key, value in tensors.items()}, metadata)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as file:
            file.write(blob)
        os.replace(file.name, folder / f"{name}.safetensors")
    except OSError as error:
        warnings.warn(f"{folder} cannot be written ({error}): set GAN_FAST_CACHE to a folder that can", stacklevel=2)
