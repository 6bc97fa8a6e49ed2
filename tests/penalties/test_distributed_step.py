"""Two processes with half of the batch each, a DDP-wrapped critic: gradients averaged once, ranks of one mind.

grad = 1/2 (grad of rank 0 + grad of rank 1) = grad of one process on the whole batch   (losses that are means)
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from gan_fast import losses, penalties
from penalties.zoo import CASES

WORKER = """
import os
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from gan_fast import losses, penalties
from penalties import mixers
from penalties.zoo import CASES

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
results = {}

def half(x):
    return x[4 * rank : 4 * rank + 4]

case = CASES["dcgan"]
real, fake = case.images(8, 0), case.images(8, 1)
for plan in ("shared", "autograd"):
    critic = DDP(case.critic())
    arguments = dict(loss=losses.NonSaturatingLoss(), r1=1.0, r2=0.5, plan=plan)
    penalties.critic_backward(critic, real=half(real), fake=half(fake), **arguments)
    results[plan] = [p.grad.clone() for p in critic.module.parameters()]

    # two micro-batches of two: the first only accumulates
    critic.zero_grad()
    for k, sync in ((0, False), (1, True)):
        micro = [half(x)[2 * k : 2 * k + 2] for x in (real, fake)]
        penalties.critic_backward(critic, real=micro[0], fake=micro[1], scale=0.5, sync=sync, **arguments)
        if not sync:
            mine = [p.grad.clone() for p in critic.module.parameters()]
            everyone = [torch.empty_like(mine[0]) for _ in range(2)]
            dist.all_gather(everyone, mine[0])
            assert not torch.equal(*everyone), "averaged before the last micro-batch"
    results[plan + " micro"] = [p.grad.clone() for p in critic.module.parameters()]

# A critic that mixes on one rank alone: both take the formula's plan, or the averaged gradient is nobody's.
critic = mixers.Switched().double()
critic.centred_in_training = rank == 1
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    stats = penalties.critic_backward(DDP(critic), real=half(real), fake=half(fake), loss=losses.HingeLoss(), r1=1.0)
plans = [None, None]
dist.all_gather_object(plans, stats.plan)
assert plans == ["autograd", "autograd"], plans
try:
    penalties.critic_backward(
        DDP(critic), real=half(real), fake=half(fake), loss=losses.HingeLoss(), r1=1.0, plan="shared"
    )
    raised = False
except ValueError as error:
    raised = "mix" in str(error)
errors = [None, None]
dist.all_gather_object(errors, raised)
assert errors == [True, True], errors

# Sharded parameters have no whole gradient to accumulate into.
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

sharded = fully_shard(case.critic(dtype=torch.float32), mesh=init_device_mesh("cpu", (2,)))
try:
    single = [half(x).float() for x in (real, fake)]
    penalties.critic_backward(sharded, real=single[0], fake=single[1], loss=losses.HingeLoss(), r1=1.0)
    raise AssertionError("a sharded critic was taken")
except (TypeError, ValueError, RuntimeError) as error:
    assert "FSDP" in str(error) or "fully_shard" in str(error), error

if rank == 0:
    torch.save(results, sys.argv[1])
dist.barrier()
os._exit(0)  # DDP and FSDP hold the group, whose threads can abort the end of an interpreter (pytorch issue 190489)
"""


def test_two_processes(tmp_path):
    script, result = tmp_path / "worker.py", tmp_path / "gradients.pt"
    script.write_text(WORKER)
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = [p or os.getcwd() for p in sys.path] + [tests]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*torchrun, str(script), str(result)], env=environment, timeout=120, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]

    case = CASES["dcgan"]
    critic = case.critic()
    real, fake = case.images(8, 0), case.images(8, 1)
    penalties.critic_backward(
        critic, real=real, fake=fake, loss=losses.NonSaturatingLoss(), r1=1.0, r2=0.5, plan="autograd"
    )
    for name, gradients in torch.load(result).items():
        for got, parameter in zip(gradients, critic.parameters(), strict=True):
            torch.testing.assert_close(got, parameter.grad, rtol=1e-10, atol=1e-12, msg=name)
