"""Mode figures on samples whose figures are known: real, missing modes, noise, one mode, off the curve."""

from __future__ import annotations

import json
import math

import pytest
import torch

from gan_fast.data import TOYS, PointDataset, load
from gan_fast.metrics import evaluate_points, mode_figures


@pytest.mark.parametrize("name", ["ring8", "grid25"])
def test_real_samples_have_all_modes(name):
    figures = mode_figures(load(name, split="test").points, TOYS[name])
    assert figures.caught == TOYS[name].modes
    # P(chi square with two degrees of freedom <= 9), five standard deviations of a share of 10,000
    assert abs(figures.high_quality - (1 - math.exp(-4.5))) < 5 * math.sqrt(0.989 * 0.011 / 10_000)
    # E[r^2 | r <= 3 sd] = 2 sd^2 (1 - 4.5 e^-4.5 / (1 - e^-4.5))
    assert figures.spread == pytest.approx(1.378, abs=0.02)
    # Of n samples of the uniform distribution over K modes, 2 n KL is chi square with K - 1 degrees of freedom.
    assert figures.kl < 2 * TOYS[name].modes / 20_000


def test_missing_modes_are_counted_and_cost_log_of_the_share():
    points, mode = TOYS["grid25"].draw(25_000, seed=9)
    figures = mode_figures(points[mode < 15], TOYS["grid25"])
    assert figures.caught == 15
    assert figures.kl == pytest.approx(math.log(25 / 15), abs=0.002)
    one = mode_figures(points[mode == 7], TOYS["grid25"])
    assert one.caught == 1 and one.kl == pytest.approx(math.log(25)) and one.high_quality > 0.97


def test_a_mode_is_caught_from_twenty_samples_within_three_deviations():
    toy = TOYS["grid25"]
    near, far = (
        toy.anchors + 2.99 * toy.sd * torch.tensor([0.6, 0.8]),
        toy.anchors + 3.01 * toy.sd * torch.tensor([0.6, 0.8]),
    )
    assert mode_figures(near.repeat(20, 1), toy).caught == 25
    assert mode_figures(near.repeat(19, 1), toy).caught == 0
    assert mode_figures(near, toy).spread == pytest.approx(2.99, abs=1e-4)
    assert mode_figures(toy.anchors.repeat(20, 1), toy)[:3] == (25, 1.0, pytest.approx(0, abs=1e-6))
    figures = mode_figures(far.repeat(20, 1), toy)
    assert figures.caught == 0 and figures.high_quality == 0 and figures.kl == pytest.approx(0, abs=1e-12)


def test_uniform_noise_catches_nothing_on_grid25():
    """25 discs of radius 0.15 are 2.6 % of the square."""
    noise = torch.rand(10_000, 2, generator=torch.Generator().manual_seed(0)) * 8.4 - 4.2
    figures = mode_figures(noise, TOYS["grid25"])
    assert figures.caught <= 1
    assert figures.high_quality == pytest.approx(25 * math.pi * 0.15**2 / 8.4**2, abs=0.006)


def test_the_curve_is_followed_and_its_segments_told_apart():
    toy = TOYS["swissroll"]
    points, segment = toy.draw(10_000, seed=4)
    figures = mode_figures(points, toy)
    assert figures.caught == 32 and figures.high_quality > 0.99 and figures.kl < 0.01
    half = mode_figures(points[segment < 16], toy)
    assert 16 <= half.caught <= 17 and half.kl == pytest.approx(math.log(2), abs=0.02)
    # Half way between two turns, whose distance is 2 pi / 7.5.
    radius = points.norm(dim=1, keepdim=True)
    between = points * (radius + math.pi / 7.5) / radius
    assert mode_figures(between[segment < 10], toy).high_quality < 0.01


def test_a_report_stands_beside_noise_and_real_and_is_plain():
    data = load("grid25")
    report = evaluate_points(torch.randn(1000, 2), data)
    assert report.figures.high_quality < 0.2 < 0.9 < report.real.high_quality and report.noise.caught == 0
    assert report.rarest == 0
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["figures"]["caught"] == report.figures.caught and plain["real"]["kl"] == report.real.kl
    text = "\n".join(report.lines())
    assert "1,000 samples against grid25: 25 modes" in text and "uniform noise" in text
    assert "32 segments of the curve" in evaluate_points(torch.randn(100, 2), load("swissroll")).lines()[0]


@pytest.mark.parametrize(
    ("samples", "data", "message"),
    [
        (torch.zeros(5, 3), "grid25", r"\[N, 2\] with N >= 2; got \[5, 3\]"),
        (torch.zeros(1, 2), "grid25", r"got \[1, 2\]"),
        (torch.full((5, 2), torch.nan), "grid25", "finite"),
        (torch.zeros(5, 2), None, "modes of mine are not known"),
    ],
)
def test_unfit_samples_are_refused(samples, data, message):
    dataset = load(data) if data else PointDataset(torch.zeros(5, 2), name="mine")
    with pytest.raises(ValueError, match=message):
        evaluate_points(samples, dataset)
