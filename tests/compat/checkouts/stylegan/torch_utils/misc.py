"""What checkouts keep beside the ops: stays the checkout's own."""

import numpy as np
import torch


class InfiniteSampler(torch.utils.data.Sampler):
    def __init__(self, dataset, seed=0):
        super().__init__(dataset)
        self.dataset = dataset
        self.seed = seed

    def __iter__(self):
        order = np.random.RandomState(self.seed)
        while True:
            yield from order.permutation(len(self.dataset))


def constant(value, device):
    return torch.as_tensor(value, device=device)
