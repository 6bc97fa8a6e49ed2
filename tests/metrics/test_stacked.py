"""Figures of stacked digits: the formulas, and that they tell real pictures, collapse and copies apart."""

from __future__ import annotations

import math

import pytest
import torch

from gan_fast import data
from gan_fast.metrics import evaluate_stacked, stacked_figures


def test_the_figures_are_the_formulas():
    everything = torch.arange(1000).repeat(3)
    assert stacked_figures(everything) == (1000, pytest.approx(0.0, abs=1e-12))
    half = torch.arange(500)
    assert stacked_figures(half) == (500, pytest.approx(math.log(2)))
    assert stacked_figures(torch.zeros(7, dtype=torch.int64)) == (1, pytest.approx(math.log(1000)))


def test_real_pictures_pass_and_copies_of_few_do_not():
    train = data.load("stacked-digits")
    real = train.held_out.float_batch(torch.arange(10_000))
    report = evaluate_stacked(real, train)
    # 999 / 2n is what n perfect samples have.
    assert report.figures.caught >= 999 and report.figures.kl < 2 * 999 / 20_000
    assert report.test_accuracy > 0.97 and 0.8 < report.replay.ratio < 1.25
    assert report.gaussian.kl > 2 * report.real.kl
    collapsed = evaluate_stacked(train.float_batch(torch.arange(50).repeat(40)), train)
    assert collapsed.figures.caught <= 50 and collapsed.figures.kl > 2.5
    assert collapsed.replay.ratio < 0.1 and collapsed.replay.copies > 0.9
    assert "modes caught" in "\n".join(report.lines()) and report.to_dict()["figures"]["caught"] >= 999


def test_other_shapes_are_refused():
    train = data.load("stacked-digits", limit=10)
    with pytest.raises(ValueError, match=r"judged at \[N, 3, 8, 8\]"):
        evaluate_stacked(torch.zeros(4, 1, 8, 8), train)
    with pytest.raises(ValueError, match="finite"):
        evaluate_stacked(torch.full((4, 3, 8, 8), torch.nan), train)
