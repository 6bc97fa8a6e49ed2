"""Networks that turn an image into features, trained on real training images only.

With labels, a classifier: features are the activations before its last layer. Without, a denoising autoencoder:
features are its bottleneck. Both share one trunk, conv 3x3 + batch norm + ReLU blocks joined by 2x2 max pooling down
to 4x4, then one linear layer to `FEATURES` numbers. Images larger than 32 pixels are first averaged down to 32: the
figures judge what is visible at that size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast.data import ImageDataset
from gan_fast.metrics import cache

FEATURES = 64
LARGEST_SEEN = 32
# Part of every cache key: raise it when anything below changes a figure.
VERSION = 1


# Images per step, the highest learning rate, and how many images to see in all: at most 60 times each.
BATCH = 64
LEARNING_RATE = 3e-3
SEEN = 150_000
EPOCHS = 60


def as_seen(images: Tensor) -> Tensor:
    """`[N, C, H, H]` in [-1, 1], float, at the size that the figures judge: at most 32 pixels."""
    if images.shape[-1] <= LARGEST_SEEN:
        return images
    return F.avg_pool2d(images, images.shape[-1] // LARGEST_SEEN)


def seen_pixels(dataset: ImageDataset, indices: Tensor | None = None) -> Tensor:
    """The images of a data set as the figures see them: fp32 `[N, C, h, h]`."""
    chosen = torch.arange(len(dataset)) if indices is None else indices
    return torch.cat([as_seen(dataset.float_batch(part)) for part in chosen.split(1024)])


def _trunk(channels: int, resolution: int) -> nn.Sequential:
    # 8x8 images are small enough for a wide first block; larger ones start narrow, where pixels are many.
    widths = [48, 96] if resolution <= 8 else [16, 32, 64, 96][: resolution.bit_length() - 2]
    blocks: list[nn.Module] = []
    for i, width in enumerate(widths):
        if i:
            blocks.append(nn.MaxPool2d(2))
        blocks += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(channels * 16, FEATURES))


class FeatureNet(nn.Module):
    """Base of both: `features(x)` for x `[N, C, h, h]` gives `[N, FEATURES]`."""

    kind = "features"

    def __init__(self, channels: int, resolution: int) -> None:
        super().__init__()
        self.trunk = _trunk(channels, resolution)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.trunk(x.contiguous(memory_format=torch.channels_last)))


class Classifier(FeatureNet):
    """Logits `[N, classes]`."""

    kind = "classifier"

    def __init__(self, channels: int, resolution: int, classes: int) -> None:
        super().__init__(channels, resolution)
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.features(x), 0.2, self.training))

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(_shifted(x)), labels, label_smoothing=0.05)


class Autoencoder(FeatureNet):
    """Images `[N, C, h, h]` back from 64 numbers, from noisy inputs."""

    kind = "autoencoder"

    def __init__(self, channels: int, resolution: int) -> None:
        super().__init__(channels, resolution)
        self.shape = (channels, resolution, resolution)
        self.head = nn.Sequential(nn.Linear(FEATURES, 64 * 16), nn.ReLU(), nn.Unflatten(1, (64, 4, 4)))
        ups: list[nn.Module] = []
        size, width = 4, 64
        while size < resolution:
            narrower = max(width // 2, 16)
            ups += [nn.Upsample(scale_factor=2), nn.Conv2d(width, narrower, 3, padding=1), nn.ReLU()]
            size, width = size * 2, narrower
        self.decoder = nn.Sequential(*ups, nn.Conv2d(width, channels, 3, padding=1))

    def features(self, x: Tensor) -> Tensor:
        return self.trunk(x.contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.head(self.features(x)))

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(self(x + 0.2 * torch.randn_like(x)), x)


def _shifted(x: Tensor) -> Tensor:
    """The batch moved by up to 1/16 of its size each way, at least one pixel, the border repeated."""
    reach = max(1, x.shape[-1] // 16)
    dy, dx = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    return padded[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]]


@dataclass(frozen=True)
class Extractor:
    """A trained network and how good it is.

    `accuracy`: of a classifier, on held-out images. `explained`: of an autoencoder, the share of the pixels' variance
    that it restores, on held-out images where there are any.
    """

    net: FeatureNet
    kind: str
    classes: tuple[str, ...]
    accuracy: float | None = None
    explained: float | None = None

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """`[N, C, h, h]` in [-1, 1] to fp32 `[N, FEATURES]`."""
        return torch.cat([self.net.features(part) for part in images.split(1024)])

    @torch.inference_mode()
    def predictions(self, images: Tensor) -> Tensor:
        """The likeliest class of each image, int64 `[N]`; only of a classifier."""
        if self.kind != "classifier":
            raise ValueError("this data has no labels, so nothing tells classes apart")
        return torch.cat([self.net(part).argmax(1) for part in images.split(1024)])


def has_classifier(dataset: ImageDataset) -> bool:
    """Labels, held-out images to measure accuracy on, and at least 20 images per class to learn from."""
    return dataset.labels is not None and dataset.held_out is not None and len(dataset) >= 20 * len(dataset.classes)


def extractor_for(dataset: ImageDataset, *, seed: int = 0, progress: Callable[[str], None] | None = None) -> Extractor:
    """The feature network of a training set: from the cache, or trained now and cached."""
    if dataset.shape[1] != dataset.shape[2]:
        raise ValueError(f"{dataset.name} has images of {list(dataset.shape)}, and only square ones can be judged")
    resolution = min(dataset.resolution, LARGEST_SEEN)
    classify = has_classifier(dataset)
    net: FeatureNet
    # The network's initial weights, batches and shifts come from this seed alone; the caller's stream is untouched.
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if classify:
            net = Classifier(dataset.channels, resolution, len(dataset.classes))
        else:
            net = Autoencoder(dataset.channels, resolution)
        # The faster layout of convolutions on CPUs; parameters and inputs agree on it.
        net.to(memory_format=torch.channels_last)
        key = f"{net.kind}-v{VERSION}-s{seed}-{dataset.fingerprint[:32]}"
        saved = cache.read(key)
        if saved is not None:
            net.load_state_dict(saved[0])
        else:
            with _one_thread():
                _train(net, dataset, progress)
            cache.write(key, dict(net.state_dict()), {"data": dataset.name, "kind": net.kind})
    net.eval().requires_grad_(False)
    return _graded(net, dataset)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of sums, so the last bits of every figure, must not depend on how many cores a machine has. Layers this
    small gain little from a second core, and lose tenfold when another process holds it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(net: FeatureNet, dataset: ImageDataset, progress: Callable[[str], None] | None) -> None:
    batch = min(BATCH, len(dataset))
    steps = max(min(SEEN, EPOCHS * len(dataset)) // batch, 100)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    net.train()
    order = torch.randperm(len(dataset))
    labels = dataset.labels if dataset.labels is not None else torch.zeros(len(dataset), dtype=torch.int64)
    position = 0
    for step in range(steps):
        if position + batch > len(order):
            order, position = torch.randperm(len(dataset)), 0
        chosen = order[position : position + batch]
        position += batch
        loss = net.loss(as_seen(dataset.float_batch(chosen)), labels[chosen])  # type: ignore[operator]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None and step % max(1, steps // 20) == 0:
            progress(f"learning to see {dataset.name}: {100 * step // steps} %")


@torch.inference_mode()
def _graded(net: FeatureNet, dataset: ImageDataset) -> Extractor:
    judged = dataset.held_out or dataset
    pixels = seen_pixels(judged, torch.arange(min(len(judged), 10_000)))
    if isinstance(net, Classifier):
        assert judged.labels is not None
        right = [(net(x).argmax(1) == y) for x, y in zip(pixels.split(1024), judged.labels.split(1024), strict=False)]
        return Extractor(net, net.kind, dataset.classes, accuracy=float(torch.cat(right).double().mean()))
    error = torch.cat([(net(x) - x).square().flatten(1).sum(1) for x in pixels.split(1024)]).mean()
    variance = (pixels - pixels.mean(0)).square().flatten(1).sum(1).mean()
    return Extractor(net, net.kind, (), explained=float(1 - error / variance.clamp(min=1e-12)))
