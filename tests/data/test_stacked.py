"""Stacked digits: what is stacked, how the label says so, splits that share no digit, refusals."""

from __future__ import annotations

import pytest
import torch

from gan_fast.data import DataError, load
from gan_fast.data.digits import load_digits


def members(split):
    images, labels = load_digits(split)
    return {tuple(image.flatten().tolist()): int(label) for image, label in zip(images, labels, strict=True)}


def test_channels_are_digits_and_the_label_names_them():
    train, test = load("stacked-digits", limit=300), load("stacked-digits", split="test", limit=300)
    for dataset, own, other in ((train, members("train"), members("test")), (test, members("test"), members("train"))):
        assert dataset.shape == (3, 8, 8) and len(dataset.classes) == 1000
        for picture, label in zip(dataset.images, dataset.labels, strict=True):
            channels = [tuple(channel.flatten().tolist()) for channel in picture]
            assert [own[c] for c in channels] == [int(d) for d in dataset.classes[label]]
            assert not any(c in other for c in channels)


def test_every_mode_is_about_as_likely_and_loads_agree():
    train = load("stacked-digits")
    counts = train.labels.bincount(minlength=1000)
    assert len(train) == 50_000 and len(train.held_out) == 10_000
    # 50 a mode with a standard deviation of 7.
    assert counts.min() > 15 and counts.max() < 90
    assert torch.equal(train.images, load("stacked-digits").images)


def test_grey_is_refused():
    with pytest.raises(DataError, match="stacks a digit in each of 3 channels; got channels 1"):
        load("stacked-digits", channels=1)
