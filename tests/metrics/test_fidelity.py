"""FID and what else stands on features: by the formulas, by torch-fidelity's own numbers, and what is kept on disk."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_fast.metrics import inception
from gan_fast.metrics.fidelity import WITH_INCEPTION, ProxyNetwork, evaluate_fidelity
from gan_fast.metrics.frechet import frechet_distance, moments
from gan_fast.metrics.inception_score import inception_score
from gan_fast.metrics.kid import kid
from gan_fast.metrics.manifolds import density_coverage, precision_recall
from gan_fast.training import pictures

NAME = "gan-fast-small"


def blobs(count, centres, seed=0):
    stream = torch.Generator().manual_seed(seed)
    which = torch.arange(count) % len(centres)
    return torch.tensor(centres, dtype=torch.float64)[which] + 0.1 * torch.randn(count, 2, generator=stream).double()


def test_kid_is_the_unbiased_estimate_of_its_formula():
    x, y = torch.randn(7, 5), torch.randn(7, 5) + 0.3

    def k(a, b):
        return (float(a.double() @ b.double()) / 5 + 1) ** 3

    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs) / len(pairs)
    expected = within - 2 * sum(k(a, b) for a in x for b in y) / 49
    found = kid(x, y)
    assert found.subset == 7 and found.mean == pytest.approx(expected, rel=1e-5) and found.sd < 1e-5
    # Unbiased: no distance between halves of one distribution, where a Frechet distance has some.
    a, b = torch.randn(2000, 16), torch.randn(2000, 16)
    assert abs(kid(a, b, subsets=20, subset=500).mean) < 0.01


def test_inception_score_of_sure_and_unsure():
    sure = 50 * torch.eye(10)[torch.arange(1000) % 10]
    assert inception_score(sure, splits=1)[0] == pytest.approx(10)
    mean, sd = inception_score(sure)  # a split of 100 has not ten of each class
    assert 9 < mean < 10 and 0 < sd < 0.5
    assert inception_score(torch.zeros(100, 10))[0] == pytest.approx(1)
    assert inception_score(50 * torch.eye(10)[torch.zeros(100, dtype=torch.int64)])[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="as many samples; got 9"):
        inception_score(torch.zeros(9, 10))


def test_manifolds_follow_their_formulas():
    samples, real, k = torch.randn(40, 3), torch.randn(50, 3) * 1.3, 4

    def ball(points, i):
        return sorted(math.dist(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]

    s, r = samples.double().tolist(), real.double().tolist()
    reach, own = [ball(r, i) for i in range(50)], [ball(s, i) for i in range(40)]
    inside = [[math.dist(y, x) <= reach[i] for i, x in enumerate(r)] for y in s]
    recalled = [any(math.dist(x, y) <= own[j] for j, y in enumerate(s)) for x in r]
    found = precision_recall(samples, real, k)
    assert found.precision == pytest.approx(sum(map(any, inside)) / 40) and found.recall == sum(recalled) / 50
    both = density_coverage(samples, real, k)
    assert both.density == pytest.approx(sum(map(sum, inside)) / 40 / k)
    assert both.coverage == pytest.approx(sum(any(row[i] for row in inside) for i in range(50)) / 50)
    with pytest.raises(ValueError, match="more than 4 points; got 4"):
        precision_recall(samples[:4], real, k)


def test_manifolds_tell_what_is_missing():
    four = [(0, 0), (4, 0), (0, 4), (4, 4)]
    real, same, two = blobs(1000, four), blobs(1000, four, 1), blobs(1000, four[:2], 1)
    assert density_coverage(same, real).density == pytest.approx(1, abs=0.1)
    assert density_coverage(same, real).coverage == pytest.approx(1 - 2**-5, abs=0.02)
    assert precision_recall(two, real).precision > 0.9 and density_coverage(two, real).density > 0.9
    assert precision_recall(two, real).recall < 0.55 and density_coverage(two, real).coverage < 0.55
    # One outlier among the real images makes precision praise noise around it; density does not (Naeem 2020, 3.1).
    far = torch.cat([real, torch.tensor([[40.0, 40.0]]).double()])
    noise = torch.rand(1000, 2, generator=torch.Generator().manual_seed(2)).double() * 20 + 20
    assert precision_recall(noise, far).precision > 0.9
    assert density_coverage(noise, far).density < 0.3 and density_coverage(noise, far).coverage < 0.01


class Counted:
    """A network for `evaluate_fidelity` that counts what it sees: pixels in blocks, and their classes."""

    name, key = "pixels", "pixels"

    def __init__(self):
        self.seen = []

    def features(self, images, progress=None):
        self.seen.append(len(images))
        flat = images.float().flatten(1) / 16
        return flat, flat[:, :10]


def test_figures_of_samples_beside_held_out_ones_and_the_real_ones_are_seen_once(digits):
    network = Counted()
    samples = digits.images[:300].float() / 127.5 - 1
    report = evaluate_fidelity(samples, digits, WITH_INCEPTION, network)
    assert network.seen == [len(digits), min(300, len(digits.held_out)), 300]
    again = evaluate_fidelity(samples, digits, WITH_INCEPTION, network)
    assert network.seen[3:] == [300] and again == report
    real = moments(digits.images.float().flatten(1) / 16)
    own = moments(digits.images[:300].float().flatten(1) / 16)
    expected = frechet_distance(own.mean, own.covariance, real.mean, real.covariance)
    assert report.figures["fid"] == pytest.approx(expected), "bytes come back from [-1, 1] as they were"
    assert report.figures["precision"] == 1.0 and report.floor["precision"] < 1
    assert set(report.floor) == set(report.figures) and report.real == report.features == len(digits)
    text = "\n".join(report.lines())
    assert "FID" in text and "held-out" in text and "proxy" not in text
    with pytest.raises(ValueError, match=r"samples must be \[N, 1, 8, 8\]"):
        evaluate_fidelity(torch.zeros(5, 3, 8, 8), digits, ["fid"], network)
    with pytest.raises(ValueError, match="finite"):
        evaluate_fidelity(samples * torch.nan, digits, ["fid"], network)


def test_proxy_figures_are_named_so(digits):
    names = ["proxy_precision_recall", "proxy_density_coverage"]
    network = ProxyNetwork(digits)
    stream = torch.Generator().manual_seed(1)
    noise = torch.rand(300, 1, 8, 8, generator=stream) * 2 - 1
    report = evaluate_fidelity(noise, digits, names, network)
    assert set(report.figures) == {"proxy_precision", "proxy_recall", "proxy_density", "proxy_coverage"}
    assert all("proxy" in line for line in report.lines())
    assert report.figures["proxy_coverage"] < 0.1 < 0.5 < report.floor["proxy_coverage"]
    assert report.figures["proxy_density"] < 0.2
    with pytest.raises(ValueError, match="proxy's classifier does not give fid"):
        evaluate_fidelity(noise, digits, ["fid"], network)


# What follows needs torch-fidelity itself.


@pytest.fixture(scope="session")
def torch_fidelity():
    return pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed: pip install 'gan-fast[fid]'")


@pytest.fixture(scope="session")
def small_network(torch_fidelity):
    """A network of fixed weights by torch-fidelity's own rules: bytes in, resized by TensorFlow's bilinear rule."""
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resize

    class Small(FeatureExtractorBase):
        def __init__(self, name, features_list, **kwargs):
            super().__init__(name, features_list)
            self.first, self.second = nn.Conv2d(3, 16, 5, 2), nn.Conv2d(16, 48, 5, 2)
            self.head = nn.Linear(48, 10, bias=False)
            stream = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for p in self.parameters():
                    p.copy_(torch.randn(p.shape, generator=stream) / p[0].numel() ** 0.5)

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            y = (resize(x.float(), size=(19, 19), align_corners=False) - 128) / 128
            y = F.relu(self.second(F.relu(self.first(y)))).mean([2, 3])
            found = {"features": y, "logits": 5 * self.head(y)}
            return tuple(found[name] for name in self.features_list)

        @staticmethod
        def get_provided_features_list():
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled():
            return False

    torch_fidelity.register_feature_extractor(NAME, Small)
    return NAME


class Pictures(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i].contiguous()


THEIRS = {
    "fid": "frechet_inception_distance",
    "kid": "kernel_inception_distance_mean",
    "kid_sd": "kernel_inception_distance_std",
    "is": "inception_score_mean",
    "is_sd": "inception_score_std",
    "precision": "precision",
    "recall": "recall",
}


def agree(torch_fidelity, samples, dataset, network, metrics, **settings):
    report = evaluate_fidelity(samples, dataset, metrics, network)
    images = pictures.to_bytes(samples)  # as they would be saved for theirs to read
    names = {"fid": "fid", "kid": "kid", "is": "isc", "precision_recall": "prc"}
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(images), input2=Pictures(dataset.images), cuda=False, cache=False, save_cpu_ram=True,
        verbose=False, **{names[m]: True for m in metrics if m in names}, **settings,
    )  # fmt: skip
    for name, value in report.figures.items():
        if name in THEIRS:
            assert value == pytest.approx(theirs[THEIRS[name]], rel=1e-4, abs=1e-6), name
    return report.figures


def test_torch_fidelity_gives_the_same_numbers(torch_fidelity, small_network, digits):
    """FID, KID, IS, precision and recall, from the same pictures, through all of theirs and all of ours.

    They agree to 4e-5. Broken versions: bytes cut off instead of rounded 3 % in FID and KID; bytes that wrap FID 0.51
    for 0.22; KID with the diagonal 24 %, with other subsets 0.9 %; the second neighbour precision 0.22 for 0.31.
    """
    stream = torch.Generator().manual_seed(3)
    real = digits.float_batch(torch.randperm(len(digits), generator=stream)[:1100])
    samples = 0.2 + real + 0.6 * torch.randn(real.shape, generator=stream)
    network = inception.Inception(extractor=small_network)
    figures = agree(torch_fidelity, samples, digits, network, WITH_INCEPTION, feature_extractor=small_network)
    assert figures["fid"] > 0.1 and 0.1 < figures["precision"] < 0.5 and figures["is_sd"] > 1e-4


@pytest.mark.slow
def test_inception_itself_gives_the_same_numbers(torch_fidelity, digits, tmp_path, monkeypatch):
    """torch-fidelity's Inception, from a weights file as it would be there, of random numbers."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
    torch.manual_seed(0)
    state = FeatureExtractorInceptionV3("x", ["2048"]).state_dict()
    monkeypatch.undo()
    weights = tmp_path / inception.WEIGHTS_NAME
    torch.save(state, weights)
    few = type(digits)(digits.images[:5], name="few")
    samples = digits.images[5:10].float() / 127.5 - 1
    network = inception.Inception(weights)
    metrics = ["fid", "precision_recall"]
    settings = {"feature_extractor": inception.EXTRACTOR, "feature_extractor_weights_path": str(weights)}
    agree(torch_fidelity, samples, few, network, metrics, **settings)


class Trap:
    """Whoever unpickles it makes the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_weights_are_asked_for_and_looked_at(torch_fidelity, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(inception.WEIGHTS_VARIABLE, raising=False)
    with pytest.raises(inception.InceptionError, match=r"neither given nor at .*--inception-weights FILE"):
        inception.Inception()
    with pytest.raises(inception.InceptionError, match=r"no\.pth, named as the weights of Inception, is not a file"):
        inception.Inception(tmp_path / "no.pth")
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, other)
    monkeypatch.setenv(inception.WEIGHTS_VARIABLE, str(other))
    with pytest.raises(inception.InceptionError, match="another network"):
        inception.Inception()
    caught = tmp_path / "caught"
    other.write_bytes(pickle.dumps(Trap(str(caught))))
    with pytest.raises(inception.InceptionError, match="cannot be read as the weights"):
        inception.Inception()
    assert not caught.exists(), "nothing of the file may run"
