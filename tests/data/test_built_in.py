"""Digits and Fashion-MNIST, and the batches made of them."""

import gzip
import struct

import pytest
import torch

from gan_fast.data import DataError, ImageDataset, inspect, load
from gan_fast.data.idx import DEBIAN_FOLDER

needs_fashion = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(),
    reason=f"Fashion-MNIST is not installed ({DEBIAN_FOLDER}; apt install dataset-fashion-mnist)",
)


def test_digits_are_split_for_good():
    train, test, everything = (load("digits", split=split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1438, 359, 1797)
    assert tuple(train.images.shape[1:]) == (1, 8, 8)
    assert train.held_out is not None
    assert train.held_out.fingerprint == test.fingerprint
    assert test.labels.bincount().min() >= 35
    # The split is part of every published figure: a change of it must be noticed.
    assert train.fingerprint.startswith("583807b81f6cec18")


def test_resolution_channels_and_limit():
    dataset = load("digits", resolution=32, channels=3, limit=10)
    assert tuple(dataset.images.shape) == (10, 3, 32, 32)
    small = load("digits", resolution=8, limit=10)
    assert torch.equal(dataset.labels, small.labels)
    assert (dataset.images[:, 0] == dataset.images[:, 2]).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resolution": 12}, "power of two from 8; got 12"),
        ({"channels": 4}, "1 \\(grey\\) or 3 \\(RGB\\); got 4"),
        ({"split": "val"}, "train, test, all; got 'val'"),
        ({"limit": 0}, "at least 1; got 0"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(DataError, match=message):
        load("digits", **wrong)


def test_batches_are_scaled_and_flipped():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(3, 1, 1, 1)
    dataset = ImageDataset(images)
    batch = dataset.float_batch(torch.tensor([2, 0]), flip=torch.tensor([False, True]))
    torch.testing.assert_close(batch[0].flatten(), torch.arange(256) / 127.5 - 1)
    assert torch.equal(batch[1], batch[0].flip(2))
    half = dataset.float_batch(torch.tensor([0]), dtype=torch.bfloat16, memory_format=torch.channels_last)
    assert half.dtype == torch.bfloat16
    assert half.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(DataError, match="no labels"):
        dataset.label_batch(torch.tensor([0]))


def test_inspect_digits():
    report = inspect("digits")
    assert (report.usable, report.held_out, report.can_train) == (1797, 359, True)
    assert sum(report.classes.values()) == 1797


def write_idx(path, shape, content):
    raw = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + content
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        file.write(raw)


def test_idx_files_in_a_folder_and_in_torchvisions_layout(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 20), ("t10k", 10)):
        write_idx(raw / f"{stem}-images-idx3-ubyte", (count, 28, 28), bytes([200]) * (count * 784))
        write_idx(raw / f"{stem}-labels-idx1-ubyte.gz", (count,), bytes(i % 10 for i in range(count)))
    for root in (tmp_path, raw):
        train = load(f"fashion-mnist:{root}")
        assert tuple(train.images.shape) == (20, 1, 32, 32)
        assert len(train.held_out) == 10
        assert train.images[0, 0, 1].tolist() == [0] * 32
        assert train.images[0, 0, 2].tolist() == [0, 0] + [200] * 28 + [0, 0]
    whole = (raw / "train-images-idx3-ubyte").read_bytes()
    (raw / "train-images-idx3-ubyte").write_bytes(whole[:-1])
    with pytest.raises(DataError, match="20x28x28 bytes but 15679 follow"):
        load(f"fashion-mnist:{raw}")


def test_missing_fashion_mnist_says_where_it_looked(tmp_path):
    with pytest.raises(DataError, match=rf"looked for train-images-idx3-ubyte.*{tmp_path}.*apt install"):
        load(f"fashion-mnist:{tmp_path}")


@needs_fashion
def test_fashion_mnist():
    dataset = load("fashion-mnist", limit=1000)
    assert tuple(dataset.images.shape) == (1000, 1, 32, 32)
    assert dataset.labels.bincount(minlength=10).min() > 50
