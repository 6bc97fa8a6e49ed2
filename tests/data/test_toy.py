"""Toy distributions: the statistics their papers give, fixed splits, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from gan_fast.data import TOYS, DataError, ImageDataset, PointDataset, inspect, load, pack


@pytest.mark.parametrize("name", TOYS)
def test_points_are_the_same_at_every_load_and_splits_share_none(name):
    train, again, test, everything = (load(name, split=split) for split in ("train", "train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (100_000, 10_000, 110_000)
    assert torch.equal(train.points, again.points) and train.fingerprint == again.fingerprint
    assert train.fingerprint != test.fingerprint and torch.equal(train.held_out.points, test.points)
    assert len(torch.cat([train.points, test.points]).unique(dim=0)) > 109_900
    assert len(load(name, limit=50)) == 50 and load(name, limit=50).fingerprint != train.fingerprint


@pytest.mark.parametrize(("name", "sd", "modes"), [("ring8", 0.02, 8), ("grid25", 0.05, 25)])
def test_mixtures_have_their_centres_and_noise(name, sd, modes):
    points, mode = TOYS[name].draw(100_000, seed=3)
    per_mode = mode.bincount(minlength=modes).double() / len(mode)
    # Standard deviation of a share p of n draws.
    assert (per_mode - 1 / modes).abs().max() < 5 * math.sqrt((1 / modes) / len(mode))
    for k in range(modes):
        own = points[mode == k].double()
        assert (own.mean(0) - TOYS[name].anchors[k]).abs().max() < 5 * sd / math.sqrt(len(own))
        assert (own.std(0) / sd - 1).abs().max() < 5 / math.sqrt(2 * len(own))


def test_the_centres_are_the_papers():
    ring, grid = TOYS["ring8"].anchors, TOYS["grid25"].anchors
    torch.testing.assert_close(ring.norm(dim=1), torch.full((8,), 2.0))
    assert {tuple(centre) for centre in grid.tolist()} == {(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)}


def test_the_swiss_roll_is_scikit_learns():
    """Same moments and quantiles of the radius as the formula's source, up to the error of two samples."""
    from sklearn.datasets import make_swiss_roll

    theirs = torch.from_numpy(make_swiss_roll(20_000, noise=0.25, random_state=0)[0][:, [0, 2]] / 7.5)
    ours = TOYS["swissroll"].draw(20_000, seed=5)[0].double()
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0, atol=0.03)
    torch.testing.assert_close(ours.T.cov(), theirs.T.cov(), rtol=0, atol=0.02)
    q = torch.linspace(0.05, 0.95, 19, dtype=torch.double)
    torch.testing.assert_close(ours.norm(dim=1).quantile(q), theirs.norm(dim=1).quantile(q), rtol=0, atol=0.03)


def test_point_data_sets_of_ones_own():
    points = torch.randn(10, 3)
    data = PointDataset(points)
    assert (data.shape, len(data), data.toy, data.held_out) == ((3,), 10, None, None)
    assert data.fingerprint == PointDataset(points.clone()).fingerprint != PointDataset(points + 1).fingerprint
    assert torch.equal(data.float_batch(torch.tensor([4, 2])), points[[4, 2]])
    assert ImageDataset(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load("grid25", resolution=16), "grid25 holds points in the plane, which have no resolution; got"),
        (lambda: load("ring8", channels=1), "no channels; got channels 1"),
        (lambda: load("ring8", split="val"), "train, test, all; got 'val'"),
        (lambda: load("grid36"), "digits, fashion-mnist, ring8, grid25, swissroll"),
        (lambda: pack("grid25", "x"), "nothing to pack"),
        (lambda: PointDataset(torch.zeros(3, 2, dtype=torch.float64)), r"float32 \[N, D\], at least one; got torch.f"),
        (lambda: PointDataset(torch.zeros(0, 2)), "at least one"),
        (lambda: PointDataset(torch.full((3, 2), math.nan)), "must be finite"),
        (lambda: load("ring8").float_batch(torch.tensor([0]), flip=torch.tensor([True])), "cannot be mirrored"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_inspect():
    report = inspect("grid25")
    assert report.can_train and (report.usable, report.held_out, report.modes) == (110_000, 10_000, 25)
    assert report.to_dict()["sd"] == 0.05
    assert "110,000 points of 2 coordinates" in report.lines()[0]
