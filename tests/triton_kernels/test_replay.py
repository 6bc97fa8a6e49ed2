"""A call that is replayed launches what a plan made anew would launch; what it depends on makes it another kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_fast.triton import plans
from gan_fast.triton.plans import Plan, Target

pytest.importorskip("triton", reason="triton is not installed: CPU builds of torch do not bring it")
from gan_fast.triton import launch

BF16, FP32, LAST = torch.bfloat16, torch.float32, torch.channels_last
Call = Callable[[], Any]


class Card:
    """In the place of Triton and a card: keeps what it is asked to launch, as Triton would by plan or by handle."""

    def __init__(self) -> None:
        self.plans: list[tuple[Any, ...]] = []
        self.replays: list[tuple[Any, ...]] = []
        self.kernel = ""

    def run(self, plan: Plan) -> Any:
        values = [v.data_ptr() if isinstance(v, Tensor) else v for v in plan.arguments.values()]
        self.plans.append((plan.kernel, (*plan.grid, 1, 1)[:3], plan.tile, values))
        kernel, tile = plan.kernel, plan.tile

        class Compiled:
            def __getitem__(_, grid: tuple[int, int, int]) -> Callable[..., None]:
                return lambda *values: self.replays.append((kernel, grid, tile, list(values)))

        return Compiled()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    card = Card()
    monkeypatch.setattr(launch, "run", card.run)
    monkeypatch.setattr(launch, "target_of", lambda x: Target())
    launch.forget()
    yield card
    launch.forget()


def image(*shape: int, dtype: torch.dtype = BF16, order: torch.memory_format = LAST) -> Tensor:
    return torch.zeros(shape, dtype=dtype).contiguous(memory_format=order)


def shifted(x: Tensor) -> Tensor:
    """The same in memory that 16 does not divide the address of."""
    place = torch.zeros(x.numel() + 1, dtype=x.dtype)[1:]
    return place.as_strided(x.shape, x.stride(), place.storage_offset()).copy_(x)


X, W, DZ = image(8, 16, 12, 12), image(32, 16, 3, 3), image(8, 32, 12, 12)
S, D, NOISE, BIAS = torch.ones(8, 16), torch.ones(8, 32), torch.ones(8, 1, 12, 12), torch.ones(32)
WIDE_X, WIDE_W, WIDE_DZ = X.float(), W.float(), DZ.float()


def forward(x: Any = X, w: Any = W, s: Any = S, d: Any = D, noise: Any = NOISE, bias: Any = BIAS, *rest: Any) -> Any:
    return (launch.forward, x, w, s, d, noise, bias, *(rest or (1, 2, 0.2, 1.5, 256.0)))


def back(dz: Any = DZ, w: Any = W, s: Any = S, d: Any = D, x: Any = X, padding: int = 1) -> Any:
    return (launch.input_gradient, dz, w, s, d, x, padding)


def weights(dz: Any = DZ, x: Any = X, s: Any = S, d: Any = D, size: int = 3, padding: int = 1) -> Any:
    return (launch.weight_gradient, dz, x, s, d, size, padding)


def epilogue(dy: Any = DZ, y: Any = DZ, noise: Any = NOISE, *rest: Any) -> Any:
    return (launch.epilogue_gradient, dy, y, noise, *(rest or (2, 0.2, 1.5, 256.0)))


# No two of these may share a replay.
KINDS: dict[str, Any] = {
    "forward": forward(),
    "another batch": forward(X[:4], W, S[:4], D[:4], NOISE[:4]),
    "other pixels": forward(image(8, 16, 8, 18), W, S, D, torch.ones(8, 1, 8, 18)),
    "contiguous images": forward(X.contiguous()),
    "a view of images": forward(image(8, 16, 12, 13)[..., :12]),
    "contiguous weights": forward(w=W.contiguous()),
    "float32": forward(WIDE_X, WIDE_W),
    "float16": forward(X.half(), W.half()),
    "no styles": forward(s=None),
    "no norms": forward(d=None),
    "bfloat16 styles": forward(s=S.bfloat16()),
    "styles of a larger tensor": forward(s=torch.ones(8, 32)[:, :16]),
    "no noise": forward(noise=None),
    "one noise for all": forward(noise=NOISE[:1]),
    "narrow noise": forward(noise=NOISE.bfloat16()),
    "no bias": forward(bias=None),
    "no padding": forward(X, W, S, D, None, BIAS, 0, 2, 0.2, 1.5, 256.0),
    "relu": forward(X, W, S, D, NOISE, BIAS, 1, 1, 0.2, 1.5, 256.0),
    "another slope": forward(X, W, S, D, NOISE, BIAS, 1, 2, 0.1, 1.5, 256.0),
    "another gain": forward(X, W, S, D, NOISE, BIAS, 1, 2, 0.2, 1.0, 256.0),
    "another clamp": forward(X, W, S, D, NOISE, BIAS, 1, 2, 0.2, 1.5, 2.0),
    "no clamp": forward(X, W, S, D, NOISE, BIAS, 1, 2, 0.2, 1.5, -1.0),
    "input gradient": back(),
    "input gradient without ds": back(x=None),
    "input gradient, float32": back(WIDE_DZ, WIDE_W, x=WIDE_X),
    "input gradient, contiguous": back(DZ.contiguous()),
    "input gradient, contiguous x": back(x=X.contiguous()),
    "input gradient, more padding": back(padding=2, x=None),
    "weight gradient": weights(),
    "weight gradient, half the batch": weights(DZ[:4], X[:4], S[:4], D[:4]),
    "weight gradient, no norms": weights(d=None),
    "weight gradient, float32": weights(WIDE_DZ, WIDE_X),
    "weight gradient, 1x1": weights(size=1, padding=0),
    "epilogue": epilogue(),
    "epilogue without noise": epilogue(noise=None),
    "epilogue, contiguous": epilogue(DZ.contiguous(), DZ.contiguous()),
    "epilogue, contiguous dy": epilogue(DZ.contiguous()),
    "epilogue, linear": epilogue(DZ, DZ, NOISE, 0, 0.0, 1.0, 256.0),
}


def named(launched: tuple[Any, ...], given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pointers by the argument they point at; memory that the call made has no name."""
    names: dict[int, str] = {}
    for i, t in enumerate(given):
        if isinstance(t, Tensor):
            names.setdefault(t.data_ptr(), f"argument {i}")
    kernel, grid, tile, values = launched
    tensors = {"product": 9, "weight_gradient": 5, "epilogue_gradient": 6}[kernel]
    places = [None if v is None else names.get(v, "made") for v in values[:tensors]]
    return kernel, grid, tile, places, values[tensors:]


def test_every_kind_is_replayed_as_planned(card: Card) -> None:
    first: dict[str, list[Any]] = {}
    for name, (function, *given) in KINDS.items():
        results = function(*given)
        first[name] = [(t.shape, t.stride(), t.dtype) for t in (results if isinstance(results, tuple) else [results])]
    assert len(card.plans) == len(KINDS) and not card.replays, "two kinds are taken for one"
    for name, (function, *given) in reversed(KINDS.items()):
        results = function(*given)
        again = [(t.shape, t.stride(), t.dtype) for t in (results if isinstance(results, tuple) else [results])]
        assert again == first[name], name
    assert len(card.plans) == len(KINDS)
    for (name, (_, *given)), plan, replay in zip(KINDS.items(), card.plans, reversed(card.replays), strict=True):
        assert named(replay, tuple(given)) == named(plan, tuple(given)), name


@pytest.mark.parametrize("place", [0, 1, 2, 4, 5], ids=["x", "w", "styles", "noise", "bias"])
def test_what_is_not_aligned_is_planned_every_time(card: Card, place: int) -> None:
    """Triton compiles for pointers that 16 divides, and must see those that it does not."""
    function, *given = forward()
    function(*given)
    given[place] = shifted(given[place])
    assert plans.kind_of("forward", tuple(given[:6]), tuple(given[6:])) is None
    for _ in range(2):
        function(*given)
    assert len(card.plans) == 3 and not card.replays


def test_tf32_is_another_kind(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    function, *given = forward(WIDE_X, WIDE_W)
    for asked in ("tf32", "ieee"):
        monkeypatch.setattr(plans, "precision", lambda dtype, asked=asked: asked)
        function(*given)
    assert len(card.plans) == 2 and [p[3][-2] for p in card.plans] == ["tf32", "ieee"]


def test_kinds_without_end_do_not_fill_memory(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_MOST", 3)
    for width in range(4, 12):
        launch.weight_gradient(image(1, 4, 4, width), image(1, 4, 4, width), None, None, 3, 1)
    assert len(launch._replays) <= 3


def test_a_conversion_lives_until_the_launch(card: Card) -> None:
    """What is converted for two arguments does not share memory."""
    function, *given = forward(X.contiguous(), W.contiguous(), torch.ones(8, 32)[:, :16], torch.ones(8, 64)[:, :32])
    function(*given)
    function(*given)
    (replay,) = card.replays
    pointers = [p for p in replay[3][:7] if p is not None]
    assert len(set(pointers)) == len(pointers)
