"""Code that names CUDA runs on the CPU inside the block, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from gan_fast.compat import cuda_on_cpu


@pytest.mark.parametrize("name", ["cuda", "cuda:3", torch.device("cuda", 1)])
def test_every_way_to_say_it(name):
    with cuda_on_cpu():
        made = [
            torch.zeros(2, device=name),
            torch.ones(2).to(name),
            torch.ones(2).to(device=name, dtype=torch.float64),
            torch.ones(2).to(0),
            torch.ones(2).cuda(non_blocking=True),
            torch.empty(2).pin_memory(),
            torch.nn.Linear(2, 2).to(name).weight,
            torch.nn.Linear(2, 2, device=name).cuda().bias,
            torch.as_tensor([1.0], device=name),
            torch.randn([2], device=torch.device("cuda")),
        ]
        assert all(x.device.type == "cpu" for x in made)
        assert torch.device("cuda", 0).type == "cpu" and torch.device("cpu").type == "cpu"
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record(torch.cuda.current_stream())
        end.record()
        end.synchronize()
        assert start.elapsed_time(end) >= 0 and torch.cuda.max_memory_allocated("cuda") == 0
    assert torch.device("cuda").type == "cuda" and torch.cuda.Event is not type(start)
