"""What only a card shows: cases of `gan_fast.bench.cuda`, none without one."""

from __future__ import annotations

import pytest
import torch

from gan_fast.bench import cuda

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

CASES = cuda.cases()


def test_cuda(timed, case, contender):
    timed(case, contender)
