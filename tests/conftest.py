"""The `device` fixture, hypothesis profiles, a fresh seed for every test."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("thorough", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("GAN_FAST_HYPOTHESIS_PROFILE", "suite"))


DEVICES = [pytest.param("cpu", id="cpu")]
if torch.cuda.is_available():
    DEVICES.append(pytest.param("cuda", id="cuda", marks=pytest.mark.gpu))


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device with kernels that is present; `tests/test_devices.py` says so where there is no card."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _fresh_seed() -> None:
    torch.manual_seed(0)
