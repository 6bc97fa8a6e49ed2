"""The Inception network behind FID, KID and IS: torch-fidelity's, with a weights file that is already on this machine.

    images [N, C, H, W] in [-1, 1] -> bytes, grey as three equal channels -> 299x299 by TensorFlow's bilinear rule
    -> features [N, 2048] before the last layer, and logits [N, 1008] without its bias

Nothing is downloaded. The file is the one that torch-fidelity's own command would fetch:
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WEIGHTS_NAME = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_VARIABLE = "GAN_FAST_INCEPTION"
# Under this name torch-fidelity keeps the network; one that is registered there under another name serves too.
EXTRACTOR = "inception-v3-compat"
_BATCH = 64
_SOURCE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"

__doc__ += f"\n    {_SOURCE}{WEIGHTS_NAME}\n"


class InceptionError(ValueError):
    """The network cannot be had here: the message says what to install or which file to fetch."""


class Inception:
    """torch-fidelity's network on `device`.

    Attributes:
        name: for people.
        key: of the cache: the network and the sha256 of its weights.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        device: torch.device | str = "cpu",
        extractor: str = EXTRACTOR,
    ) -> None:
        """`weights` as for `find_weights`. `extractor` is a name in torch-fidelity's registry; one that is not its
        Inception is given no weights.

        InceptionError without torch-fidelity, without the file, or where it holds something else.
        """
        utils = _torch_fidelity()
        path = find_weights(weights) if extractor == EXTRACTOR else None
        if path is not None:
            _check_weights(path)
        layer = utils.resolve_feature_layer_for_metric
        own = {"feature_extractor": extractor}
        self.layer, self.logits = layer("fid", **own), layer("isc", **own)
        layers = list(dict.fromkeys((self.layer, self.logits)))
        network = utils.create_feature_extractor(
            extractor,
            layers,
            cuda=False,
            verbose=False,
            feature_extractor_weights_path=None if path is None else str(path),
        )
        self.device = torch.device(device)
        self.network = network.to(self.device)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path is not None else "own"
        self.key = f"{extractor}-{digest}"
        self.name = "Inception" if path is not None else extractor

    @torch.no_grad()
    def features(self, images: Tensor, progress: Callable[[str], None] | None = None) -> tuple[Tensor, Tensor]:
        """Features and logits, fp32 on the CPU, of uint8 images `[N, C, H, W]`, C 1 or 3."""
        parts = []
        for start in range(0, len(images), _BATCH):
            if progress is not None and start % (_BATCH * 16) == 0 and start:
                progress(f"{self.name} has seen {start:,} of {len(images):,} images")
            batch = images[start : start + _BATCH].to(self.device)
            got = self.network.convert_features_tuple_to_dict(self.network(batch.expand(-1, 3, -1, -1)))
            parts.append((got[self.layer].float().cpu(), got[self.logits].float().cpu()))
        features, logits = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(logits)


def find_weights(given: str | Path | None = None) -> Path:
    """The weights file: the one given, else $GAN_FAST_INCEPTION, else where torch-fidelity itself would have put it.

    InceptionError, which says how to get it, where there is none.
    """
    if named := given or os.environ.get(WEIGHTS_VARIABLE):
        path = Path(named).expanduser()
        if not path.is_file():
            raise InceptionError(f"{path}, named as the weights of Inception, is not a file: {_ADVICE}")
        return path
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
    if not path.is_file():
        raise InceptionError(f"the weights of Inception are neither given nor at {path}: {_ADVICE}")
    return path


_ADVICE = (
    f"fetch {_SOURCE}{WEIGHTS_NAME} on a machine that has a network, then say --inception-weights FILE, set "
    f"{WEIGHTS_VARIABLE}, or put it there; without it use the figures whose names begin with proxy"
)


def _torch_fidelity() -> Any:
    try:
        from torch_fidelity import utils
    except ImportError as error:
        raise InceptionError(
            f"FID, KID, IS and what else Inception judges need torch-fidelity ({error}): pip install 'gan-fast[fid]', "
            "or use the figures whose names begin with proxy"
        ) from error
    return utils


def _check_weights(path: Path) -> None:
    """That it is tensors and nothing else, and those of this network: torch-fidelity reads it as any pickle."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        shape = list(tensors["fc.weight"].shape)
        known = "Conv2d_1a_3x3.conv.weight" in tensors and shape == [1008, 2048]
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InceptionError(f"{path} cannot be read as the weights of Inception ({reason}): {_ADVICE}") from error
    if not known:
        raise InceptionError(
            f"{path} holds another network than the Inception of FID, which has 1008 outputs and TensorFlow's weights "
            f"(torchvision's has 1000 and gives other numbers): {_ADVICE}"
        )
