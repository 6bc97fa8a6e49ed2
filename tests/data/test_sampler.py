"""The order of samples: complete, seeded, shared between processes, resumable."""

import pytest
import torch

from gan_fast.data import BatchSampler


def draw(sampler, count):
    return [next(sampler) for _ in range(count)]


def test_every_epoch_shows_every_image_once():
    indices = torch.cat([batch.indices for batch in draw(BatchSampler(10, 4, seed=3), 10)])
    epochs = indices.view(4, 10)
    assert (epochs.sort(1).values == torch.arange(10)).all()
    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_may_be_larger_than_the_data():
    batch = next(BatchSampler(3, 8))
    assert batch.indices.bincount().tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_resumes_exactly_and_flips_with_it():
    whole = BatchSampler(7, 4, seed=1, flip=True)
    draw(whole, 5)
    state = whole.state_dict()
    again = BatchSampler(7, 4, seed=99, flip=True)
    again.load_state_dict(state)
    for a, b in zip(draw(whole, 9), draw(again, 9), strict=True):
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.flip, b.flip)
    with pytest.raises(ValueError, match="position is in 7 images but the data now has 8"):
        BatchSampler(8, 4).load_state_dict(state)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_one_stream(world):
    alone = BatchSampler(10, 8, seed=5, flip=True)
    ranks = [BatchSampler(10, 8, seed=5, rank=r, world=world, flip=True) for r in range(world)]
    for _ in range(6):
        one, many = next(alone), [next(rank) for rank in ranks]
        assert torch.equal(one.indices, torch.cat([batch.indices for batch in many]))
        assert torch.equal(one.flip, torch.cat([batch.flip for batch in many]))


def test_flips_are_fair_and_seeds_independent():
    flips = torch.cat([batch.flip for batch in draw(BatchSampler(1000, 100, flip=True), 50)])
    assert abs(flips.float().mean() - 0.5) < 0.03
    # Seed 0's second epoch is not seed 1's first.
    second = torch.cat([batch.indices for batch in draw(BatchSampler(100, 100, seed=0), 2)])[100:]
    assert not torch.equal(second, next(BatchSampler(100, 100, seed=1)).indices)


@pytest.mark.parametrize(
    "wrong", [{"n": 0, "batch": 1}, {"n": 5, "batch": 3, "world": 2}, {"n": 5, "batch": 2, "rank": 1}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="must be"):
        BatchSampler(**wrong)
