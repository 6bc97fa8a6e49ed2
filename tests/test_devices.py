"""Which devices the `device` fixture serves in this run."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.gpu
def test_a_card_is_present(device: torch.device) -> None:
    """Every test with a `device` also runs on the card, where there is one; the skip says that there is none."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: tests that take `device` ran on the CPU only; the CUDA kernels run in tests/simt")
    assert device.type in ("cpu", "cuda")
