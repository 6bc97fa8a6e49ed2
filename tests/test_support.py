"""The proof machinery fails when it should: each planted mistake must be caught."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from support.checks import check_bitwise_repeatable
from support.drop_in import same_outcome, same_values
from support.reference_runner import agree, poisoned_memory
from support.strategies import LAYOUTS, draw_values, lay_out
from support.tolerances import assert_bitwise_equal, assert_close

X = draw_values((33,), "normal", 1, torch.float32)


class Wrong(torch.autograd.Function):
    """softplus whose backward, or whose backward of backward, is off by a factor."""

    @staticmethod
    def forward(ctx, x, first, second):
        ctx.save_for_backward(x)
        ctx.factors = first, second
        return F.softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        first, second = ctx.factors
        value = torch.sigmoid(x.detach()) * g
        return first * (value + second * g.detach() * (torch.sigmoid(x) - torch.sigmoid(x.detach()))), None, None


def test_a_right_op_passes():
    agree(lambda x: Wrong.apply(x, 1.0, 1.0), F.softplus, [X])


@pytest.mark.parametrize(("first", "second", "words"), [(1.0001, 1.0, "gradient 0"), (1.0, 0.0, "second derivative 0")])
def test_a_wrong_derivative_is_caught(first, second, words):
    with pytest.raises(AssertionError, match=words):
        agree(lambda x: Wrong.apply(x, first, second), F.softplus, [X])


def test_an_unwritten_output_is_caught():
    def forgetful(x):
        out = torch.empty_like(x)
        out[:-1] = x[:-1]
        return out + 0 * x

    with pytest.raises(AssertionError, match="NaN or inf in the wrong place in 1 of 33"):
        agree(forgetful, lambda x: x * 1, [X])
    assert not torch.are_deterministic_algorithms_enabled()


def test_poison_reaches_every_way_to_allocate():
    with poisoned_memory():
        for x in (torch.empty(3), torch.empty_like(X), X.new_empty(2, 2), torch.empty_strided((2, 2), (1, 2))):
            assert bool(x.isnan().all())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_keep_values_and_mind_their_gaps(layout):
    values = draw_values((2, 3, 4, 5), "normal", 1)
    view = lay_out(values, layout)
    assert view.shape == values.shape
    assert bool((view == (values[:1] if layout == "expanded" else values)).all())
    assert layout in ("contiguous",) or not view.is_contiguous()


def test_one_ulp_too_far_is_caught_and_nan_is_no_number():
    eps = torch.finfo(torch.float32).eps
    truth = torch.ones(5, dtype=torch.float64)
    assert_close(truth.float() + 15 * eps, truth)
    for got in (truth.float() + 17 * eps, truth.float() * torch.nan, truth.float() / 0):
        with pytest.raises(AssertionError):
            assert_close(got, truth)
    with pytest.raises(AssertionError, match="shape"):
        assert_close(torch.ones(1), truth)


def test_another_dtype_another_error_and_another_value_are_caught():
    x = torch.randn(7)
    for ours in (lambda a: F.softplus(a.double()), lambda a: F.softplus(a) * 1.00001, lambda a: F.softplus(a).sum()):
        with pytest.raises(AssertionError):
            same_values(ours, F.softplus, [x])
        with pytest.raises(AssertionError):
            same_outcome(ours, F.softplus, x)

    def complains(a):
        raise ValueError("no")

    with pytest.raises(AssertionError, match="ours"):
        same_outcome(complains, F.softplus, x)
    with pytest.raises(AssertionError, match="ours"):
        same_outcome(complains, F.softplus, x.long())


def test_a_result_that_depends_on_the_threads_is_caught():
    with pytest.raises(AssertionError, match="differ"):
        check_bitwise_repeatable(lambda: [torch.tensor(1.0 / torch.get_num_threads())])
    with pytest.raises(AssertionError):
        assert_bitwise_equal(torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float64))
