"""Modulated convolution on a card: cases of `gan_fast.bench.modulated_conv2d_cuda`, none without one."""

from __future__ import annotations

import pytest
import torch

from gan_fast.bench import modulated_conv2d_cuda

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

CASES = modulated_conv2d_cuda.cases()


def test_modulated_conv2d_cuda(timed, case, contender):
    timed(case, contender)
