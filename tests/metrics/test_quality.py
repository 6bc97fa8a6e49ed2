"""Each figure is good for real images it has not seen, and bad for each way a generator breaks."""

import json
import warnings

import pytest
import torch

from gan_fast.data import ImageDataset, load
from gan_fast.data.idx import DEBIAN_FOLDER
from gan_fast.metrics import (
    class_coverage,
    evaluate_samples,
    extractor_for,
    gaussian_baseline,
    nearest_neighbour_ratio,
    proxy_frechet,
)
from gan_fast.metrics.features import seen_pixels
from gan_fast.metrics.figures import nearest_distances


@pytest.fixture(scope="session")
def real(digits):
    return seen_pixels(digits)


@pytest.fixture(scope="session")
def unseen(digits):
    return seen_pixels(digits.held_out)


def noise(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_classifier_has_learned(digits):
    assert extractor_for(digits).accuracy >= 0.97


def test_held_out_real_images_pass_every_figure(digits, unseen):
    report = evaluate_samples(unseen, digits)
    assert report.proxy_frechet == pytest.approx(report.real_against_real)
    assert report.gaussian_share < 0.1
    assert min(report.coverage.values()) > 0.08
    assert report.replay.ratio == pytest.approx(1)
    assert report.replay.copies < 0.01


def test_a_constant_is_bad(digits, real):
    report = evaluate_samples(real.mean(0, keepdim=True).repeat(500, 1, 1, 1), digits)
    assert report.gaussian_share > 3
    assert sorted(report.coverage.values())[-2] == 0


def test_noise_is_bad(digits):
    report = evaluate_samples(noise(500), digits)
    assert report.gaussian_share > 2
    assert min(report.coverage.values()) < 0.04
    assert report.replay.ratio > 2


def test_one_class_is_bad(digits, unseen):
    threes = unseen[digits.held_out.labels == 3]
    report = evaluate_samples(threes, digits)
    assert report.gaussian_share > 2
    assert report.coverage["3"] > 0.9
    assert report.coverage["7"] < 0.04
    assert report.replay.ratio > 0.8


def test_a_missing_class_is_seen(digits, real):
    report = evaluate_samples(real[digits.labels != 7], digits)
    assert report.coverage["7"] < 0.01
    assert report.proxy_frechet > 3 * report.real_against_real


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_replayed_training_images_are_seen(digits, real, unseen, share):
    copied = int(share * 359)
    samples = torch.cat([real[:copied], unseen[: 359 - copied]])
    report = evaluate_samples(samples, digits)
    assert report.replay.copies == pytest.approx(share, abs=0.02)
    if share == 1:
        # The distance is fooled by copies, which is why it does not stand alone.
        assert report.replay.ratio == 0
        assert report.gaussian_share < 0.1


def test_slightly_noisy_replay_is_seen(real, unseen):
    replayed = (real[:300] + 0.05 * torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert nearest_neighbour_ratio(replayed, real, unseen).ratio < 0.3


def test_the_gaussian_has_the_pixels_moments_and_sits_between(digits, real, unseen):
    extractor = extractor_for(digits)
    samples = gaussian_baseline(real, 4000)
    # Clipping moves both moments; inside the range, where most of a digit's ink is, by little.
    inner = real.flatten(1).mean(0).abs() < 0.5
    assert (samples.flatten(1).mean(0) - real.flatten(1).mean(0))[inner].abs().max() < 0.1
    good, middle, bad = (proxy_frechet(x, real, extractor) for x in (unseen, samples, noise(500)))
    assert 5 * good < middle < bad / 2


def test_coverage_counts_real_classes(digits, unseen):
    shares = class_coverage(unseen, extractor_for(digits))
    assert float(shares.sum()) == pytest.approx(1)
    assert (shares - digits.held_out.labels.bincount() / 359).abs().max() < 0.02


def test_nearest_distances_are_exact_over_chunks(real, unseen):
    found = nearest_distances(unseen[:50], real, chunk=100)
    expected = torch.cdist(unseen[:50].flatten(1).double(), real.flatten(1).double()).amin(1)
    torch.testing.assert_close(found, expected)
    assert (nearest_distances(real[:50], real) == 0).all()


def test_same_seed_same_network_and_untouched_random_state(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_FAST_CACHE", str(tmp_path))
    small = load("digits", limit=300)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.inference_mode():
        first = extractor_for(small)
    assert torch.equal(torch.get_rng_state(), before)
    saved = next((tmp_path / "metrics").iterdir())
    again = extractor_for(small)
    saved.write_bytes(saved.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="damaged"):
        retrained = extractor_for(small)
    for other in (again, retrained):
        for a, b in zip(first.net.state_dict().values(), other.net.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    assert len(list((tmp_path / "metrics").iterdir())) == 1


def test_a_cached_report_is_the_same_and_plain(digits, unseen):
    first = evaluate_samples(unseen[:200], digits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = evaluate_samples(unseen[:200], digits)
    assert json.loads(json.dumps(first.to_dict())) == json.loads(json.dumps(second.to_dict()))
    text = "\n".join(first.lines())
    assert "proxy" in text
    assert "real against real" in text


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.zeros(5, 3, 8, 8), r"\[N, 1, 8, 8\] with N >= 2; got \[5, 3, 8, 8\]"),
        (torch.full((5, 1, 8, 8), 2.0), r"in \[-1, 1\]; got values from 2.0"),
        (torch.full((5, 1, 8, 8), torch.nan), "finite"),
    ],
)
def test_unfit_samples_are_refused(digits, samples, message):
    with pytest.raises(ValueError, match=message):
        evaluate_samples(samples, digits)


def test_without_labels_an_autoencoder_judges(digits):
    held_out = ImageDataset(digits.held_out.images, name="plain", split="test")
    plain = ImageDataset(digits.images[:500], name="plain", held_out=lambda: held_out)
    report = evaluate_samples(seen_pixels(held_out), plain)
    assert report.features == "autoencoder"
    assert report.explained_variance > 0.6
    assert report.coverage == {}
    assert report.gaussian_share < 0.5
    bad = evaluate_samples(noise(359), plain)
    assert bad.gaussian_share > 2
    assert any("autoencoder" in line for line in bad.lines())


def test_few_images_have_no_floor_and_say_so():
    few = ImageDataset(torch.randint(0, 256, (30, 3, 64, 64), dtype=torch.uint8), name="few")
    report = evaluate_samples(few.float_batch(torch.arange(30)), few)
    assert (report.seen_at, report.real_against_real, report.replay) == (32, None, None)
    assert any("no images are held out" in line for line in report.lines())


def test_held_out_copies_leave_no_replay_check(digits):
    images = digits.images[:100]
    copied = ImageDataset(images, name="copied", held_out=lambda: ImageDataset(images[:40], name="copied"))
    report = evaluate_samples(noise(50), copied)
    assert report.replay is None
    assert any("no replay check" in line for line in report.lines())


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason=f"Fashion-MNIST is not installed ({DEBIAN_FOLDER})")
def test_fashion_mnist_is_learned():
    dataset = load("fashion-mnist")
    report = evaluate_samples(seen_pixels(dataset.held_out, torch.arange(2000)), dataset)
    assert report.test_accuracy >= 0.88
    assert report.gaussian_share < 0.1
    assert report.replay.ratio == pytest.approx(1, abs=0.05)
