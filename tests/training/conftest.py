"""Small runs: networks that step in a few milliseconds, on one thread so that results repeat."""

from __future__ import annotations

import pytest
import torch

from gan_fast import data, recipes

SMALL = {"batch": 16, "latent_dim": 8, "base_channels": 8, "threads": 1, "quiet": True, "device": "cpu"}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """The network that judges is trained once per session and never read from a cache of an earlier version."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GAN_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture
def small():
    """A recipe of small networks; keyword arguments replace settings."""
    threads = torch.get_num_threads()

    def make(name="dcgan", **settings):
        known = type(recipes.get(name)).__dataclass_fields__
        own = {key: value for key, value in SMALL.items() if key in known}
        return recipes.get(name, **{**own, "precision": "fp32", **settings})

    yield make
    torch.set_num_threads(threads)
