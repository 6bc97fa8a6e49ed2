"""A call that cannot be right raises one clear error that names what was given, in kernels and references alike."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from gan_fast import losses, reference_mode
from support.adversarial_formulas import COUPLED, NAMES, PAIRED

MODES = pytest.mark.parametrize("mode", [nullcontext, reference_mode], ids=["kernels", "reference"])


@MODES
@pytest.mark.parametrize("name", PAIRED)
def test_pairs_need_equal_shapes(name, mode):
    loss = losses.get(name)()
    for real, fake in [((4, 1), (4,)), ((4, 1, 3, 3), (4, 1, 2, 2)), ((8,), (4,)), ((1,), (4,))]:
        with mode(), pytest.raises(ValueError) as error:
            loss.discriminator(real=torch.randn(real), fake=torch.randn(fake))
        assert str(list(real)) in str(error.value) and str(list(fake)) in str(error.value), str(error.value)


@MODES
@pytest.mark.parametrize("name", NAMES)
def test_mixed_dtypes_name_both(name, mode):
    with mode(), pytest.raises((ValueError, TypeError), match=r"(?i)float.*(double|float64|half|float16)"):
        losses.get(name)().discriminator(real=torch.randn(4), fake=torch.randn(4).double())
    with mode(), pytest.raises((ValueError, TypeError), match=r"(?i)bfloat16"):
        losses.get(name)().discriminator(real=[torch.randn(4)] * 2, fake=[torch.randn(4), torch.randn(4).bfloat16()])


@MODES
@pytest.mark.parametrize("name", NAMES)
def test_mixed_devices_name_both(name, mode):
    with mode(), pytest.raises(ValueError, match=r"cpu.*meta|meta.*cpu"):
        losses.get(name)().discriminator(real=torch.randn(4), fake=torch.randn(4, device="meta"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cpu_and_card_name_both(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device to be on the wrong side of")
    with pytest.raises(ValueError, match=r"cpu.*cuda|cuda.*cpu"):
        losses.get(name)().discriminator(real=torch.randn(4), fake=torch.randn(4, device="cuda"))


@MODES
@pytest.mark.parametrize("bad", [torch.long, torch.bool, torch.complex64], ids=str)
def test_logits_are_floating_point(bad, mode):
    x = torch.ones(4, dtype=bad)
    words = {torch.long: "(?i)long|int64", torch.bool: "(?i)bool", torch.complex64: "(?i)complex"}[bad]
    for name in ("non_saturating", "least_squares"):
        with mode(), pytest.raises((ValueError, TypeError), match=words):
            losses.get(name)().discriminator(real=x, fake=x)
        with mode(), pytest.raises((ValueError, TypeError), match=words):
            losses.get(name)().generator(fake=x)


@MODES
@pytest.mark.parametrize("name", NAMES)
def test_lists_pair_up(name, mode):
    loss, x = losses.get(name)(), torch.randn(4)
    for real, fake in [([x, x], [x]), ([x], x), (x, [x]), ([], []), ([x], [])]:
        with mode(), pytest.raises(ValueError):
            loss.discriminator(real=real, fake=fake)
        with mode(), pytest.raises(ValueError):
            loss.logit_gradients(real=real, fake=fake)
    with mode(), pytest.raises(ValueError):
        loss.generator(fake=[], real=[])


@MODES
@pytest.mark.parametrize("name", NAMES)
def test_things_that_are_no_tensors(name, mode):
    loss, x = losses.get(name)(), torch.randn(4)
    for bad in (1.0, [1.0, 2.0], x.numpy(), "logits"):
        with mode(), pytest.raises((TypeError, ValueError)):
            loss.discriminator(real=bad, fake=x)
        with mode(), pytest.raises((TypeError, ValueError)):
            loss.discriminator(real=x, fake=bad)


@MODES
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["discriminator", "logit_gradients"])
def test_weights_must_fit_and_be_constant(name, method, mode):
    call = getattr(losses.get(name)(), method)
    real, fake = torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3)
    for shape in [(3,), (4, 1), (3, 3), (4, 1, 3), (1,), ()]:
        with mode(), pytest.raises(ValueError) as error:
            call(real=real, fake=fake, real_weight=torch.ones(shape))
        assert str(list(shape)) in str(error.value) and str([4, 1, 3, 3]) in str(error.value), str(error.value)
    with mode(), pytest.raises(ValueError, match="grad"):
        call(real=real, fake=fake, fake_weight=torch.ones(4, requires_grad=True))
    with mode(), pytest.raises(ValueError):
        call(real=[real, real], fake=[fake, fake], real_weight=[torch.ones(4)])
    with mode(), pytest.raises(ValueError):
        call(real=[real, real], fake=[fake, fake], real_weight=torch.ones(4))
    with mode(), pytest.raises(ValueError, match=r"cpu.*meta|meta.*cpu"):
        call(real=real, fake=fake, real_weight=torch.ones(4, device="meta"))


@MODES
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_floating_dtype_are_constants_all_the_same(name, mode):
    """float32 weights beside bfloat16 logits: the term is computed in float32 with the weight as given."""
    real, fake = torch.randn(4, 2).bfloat16(), torch.randn(4, 2).bfloat16()
    w = torch.tensor([0.3, 1.7, 0.0, 2.1])
    with mode():
        got = losses.get(name)().discriminator(real=real, fake=fake, real_weight=w, fake_weight=w)
        expected = losses.get(name)().discriminator(real=real.float(), fake=fake.float(), real_weight=w, fake_weight=w)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@MODES
@pytest.mark.parametrize("name", PAIRED + COUPLED)
def test_a_relativistic_generator_asks_for_real_logits(name, mode):
    with mode(), pytest.raises(ValueError, match="real="):
        losses.get(name)().generator(fake=torch.randn(4))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_keyword_only(name):
    x = torch.randn(4)
    with pytest.raises(TypeError):
        losses.get(name)().discriminator(x, x)
    with pytest.raises(TypeError):
        losses.get(name)().generator(x)
    with pytest.raises(TypeError):
        losses.get(name)("mean")


def test_unknown_names_and_options_list_what_there_is():
    with pytest.raises(ValueError, match=r"nonsaturating.*minimax.*non_saturating.*relativistic_average"):
        losses.get("nonsaturating")
    with pytest.raises(ValueError, match=r"average.*none.*mean.*sum"):
        losses.HingeLoss(reduction="average")
    for smoothing in (-0.1, 1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="label_smoothing"):
            losses.NonSaturatingLoss(label_smoothing=smoothing)
    with pytest.raises(TypeError):
        losses.WassersteinLoss(label_smoothing=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_classes_and_names_are_those_of_the_contract(name):
    cls = losses.get(name)
    assert cls.__name__ == "".join(part.capitalize() for part in name.split("_")) + "Loss"
    assert getattr(losses, cls.__name__) is cls
    assert repr(cls(reduction="sum")).startswith(cls.__name__)
