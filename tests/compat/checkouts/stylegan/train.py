"""A training script as those of the checkouts are: CUDA by name, integer betas, a process for the second rank."""

import sys

import torch
from torch_utils import custom_ops, misc
from torch_utils.ops import bias_act, conv2d_gradfix, filtered_lrelu, grid_sample_gradfix, upfirdn2d

from training import loss, networks


def second_rank(rank, queue):
    queue.put((rank, bias_act.bias_act.__module__, custom_ops.get_plugin.__module__))


def main():
    custom_ops.verbosity = "none"
    assert bias_act._init() and upfirdn2d._init() and filtered_lrelu._init()
    conv2d_gradfix.enabled = True
    grid_sample_gradfix.enabled = True
    if "--ranks=2" in sys.argv:
        queue = torch.multiprocessing.get_context("spawn").Queue()
        process = torch.multiprocessing.spawn(second_rank, args=(queue,), nprocs=1, join=False)
    device = torch.device("cuda", 0)
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    generator = networks.Generator().train().requires_grad_(True).to(device)
    discriminator = networks.Discriminator().train().requires_grad_(True).to(device)
    optimisers = [torch.optim.Adam(params=n.parameters(), lr=2e-3, betas=[0, 0.99]) for n in (generator, discriminator)]
    images = torch.rand(16, 3, 8, 8) * 2 - 1
    loader = torch.utils.data.DataLoader(images, sampler=misc.InfiniteSampler(images), batch_size=4)
    feed = iter(loader)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record(torch.cuda.current_stream(device))
    for _ in range(2):
        rank_loss = loss.Loss(generator, discriminator)
        z = torch.randn([4, generator.z_dim], device=device)
        rank_loss.train_generator(z)
        rank_loss.train_discriminator(next(feed).to(device), z)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    end.record(torch.cuda.current_stream(device))
    end.synchronize()
    finite = all(bool(p.isfinite().all()) for n in (generator, discriminator) for p in n.parameters())
    print("argument", sys.argv[1:], "finite", finite, "ms", start.elapsed_time(end) > 0)
    if "--ranks=2" in sys.argv:
        print("child", *queue.get(timeout=120))
        process.join()


if __name__ == "__main__":
    main()
