"""Class agreement: what real images of known classes have, what exchanged classes have, and refusals."""

from __future__ import annotations

import pytest
import torch

from gan_fast.data import load
from gan_fast.metrics import class_agreement, evaluate_samples, evaluate_stacked, extractor_for
from gan_fast.metrics.features import seen_pixels


def test_real_images_agree_as_the_classifier_is_right(digits):
    extractor, unseen = extractor_for(digits), digits.held_out
    pixels, labels = seen_pixels(unseen), unseen.labels
    report = evaluate_samples(pixels, digits, requested=labels)
    assert report.agreement.share == report.agreement.test_accuracy == extractor.accuracy
    assert report.to_dict()["agreement"]["per_class"].keys() == set(digits.classes)
    assert "class agreement" in "\n".join(report.lines()) and "held-out real images" in "\n".join(report.lines())
    wrong = class_agreement(pixels, (labels + 1) % 10, extractor)
    assert wrong.share < 0.03
    threes = labels == 3
    some = class_agreement(pixels[threes], labels[threes], extractor)
    assert list(some.per_class) == ["3"] and some.per_class["3"] == pytest.approx(some.share)
    half = torch.where(torch.arange(len(labels)) % 2 == 0, labels, (labels + 5) % 10)
    assert class_agreement(pixels, half, extractor).share == pytest.approx(0.5, abs=0.02)


def test_without_classes_nothing_is_said(digits):
    report = evaluate_samples(seen_pixels(digits.held_out), digits)
    assert report.agreement is None and "agreement" not in "\n".join(report.lines())


def test_stacked_digits_agree_by_all_three():
    stacked = load("stacked-digits")
    samples, labels = stacked.float_batch(torch.arange(500)), stacked.labels[:500]
    report = evaluate_stacked(samples, stacked, requested=labels)
    assert report.agreement.share > 0.98 and 0.9 < report.agreement.test_accuracy < report.test_accuracy
    assert evaluate_stacked(samples, stacked, requested=(labels + 1) % 1000).agreement.share < 0.02
    assert report.to_dict()["agreement"]["share"] == report.agreement.share


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), r"int64 \[2\], got torch.int64 \[3\]"),
        (torch.zeros(2), "got torch.float32"),
        (torch.tensor([0, 10]), "must be 0 to 9, got 0 to 10"),
    ],
)
def test_refusals(digits, requested, message):
    with pytest.raises(ValueError, match=message):
        class_agreement(torch.zeros(2, 1, 8, 8), requested, extractor_for(digits))
