"""The Frechet distance against formulas that are known in closed form."""

import pytest
import torch

from gan_fast.metrics import frechet_distance, moments

EYE = torch.eye(5, dtype=torch.float64)
ZERO = torch.zeros(5, dtype=torch.float64)


def covariance(seed: int, rank: int = 5) -> torch.Tensor:
    a = torch.randn(5, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T


def test_same_is_zero_even_when_singular():
    for rank in (5, 2, 0):
        c = covariance(1, rank)
        assert frechet_distance(ZERO, c, ZERO, c) < 1e-9


def test_commuting_covariances():
    # (sqrt(a) - sqrt(b))^2 per direction, plus the squared distance of the means.
    a, b = torch.tensor([4.0, 9, 1, 0, 16]).double(), torch.tensor([1.0, 4, 1, 25, 0]).double()
    expected = 3.0**2 * 5 + float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(ZERO + 3, a.diag(), ZERO, b.diag()) == pytest.approx(expected, rel=1e-12)


def test_general_covariances_against_the_eigenvalues_of_the_product():
    c1, c2 = covariance(2), covariance(3)
    root = torch.linalg.eigvals(c1 @ c2).real.sqrt().sum()
    expected = float(c1.trace() + c2.trace() - 2 * root)
    assert frechet_distance(ZERO, c1, ZERO, c2) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(ZERO, c2, ZERO, c1) == pytest.approx(expected, rel=1e-10)


def test_float32_statistics_of_few_samples_are_fine():
    few = moments(torch.randn(3, 64))
    assert frechet_distance(few.mean.float(), few.covariance.float(), few.mean, few.covariance) < 1e-5


def test_moments_are_numpys():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moments(x).covariance, torch.cov(x.double().T))


def test_bad_statistics_are_refused():
    with pytest.raises(ValueError, match=r"covariance2 must be \[5, 5\]; got \[4, 4\]"):
        frechet_distance(ZERO, EYE, ZERO, torch.eye(4))
    with pytest.raises(ValueError, match="mean1 has NaN"):
        frechet_distance(ZERO / 0, EYE, ZERO, EYE)
    with pytest.raises(ValueError, match="N >= 2"):
        moments(torch.zeros(1, 3))
