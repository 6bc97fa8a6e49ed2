"""Small runs: a network that steps in a few milliseconds, on one thread so that results repeat."""

from __future__ import annotations

import pytest
import torch

from gan_fast import data, recipes

SMALL = {"batch": 16, "latent_dim": 8, "base_channels": 8, "threads": 1, "quiet": True, "device": "cpu"}


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture
def small():
    """A recipe of small networks; keyword arguments replace settings."""
    threads = torch.get_num_threads()
    yield lambda **settings: recipes.get("dcgan", **{**SMALL, "precision": "fp32", **settings})
    torch.set_num_threads(threads)
