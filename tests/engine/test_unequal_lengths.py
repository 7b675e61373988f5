"""Samples of very unequal length do not share rectangles: the same attention, at the cost of each by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attending import assert_like_the_formula, seen_by, two_copies

from colatent.config.prior import PriorConfig
from colatent.evaluate.flops import count_flops
from colatent.flow.objective import flow_losses
from colatent.latents import rows
from colatent.latents.packing import pack
from colatent.latents.rows import Layout, alike
from colatent.prior.dit import Prior
from colatent_text.layouts import cut_layout, items_layout

LAYOUTS: dict[str, Callable[..., Layout]] = {
    "two copies": lambda make: two_copies(make, (3, 9, 1, 8, 3)),
    "nothing before it": lambda make: two_copies(make, (1, 1, 6), 2),
    "blocks of several lengths": lambda make: (
        pack(
            [(make("text", (2, 5), seed=1),), (make("text", (9, 9, 1), seed=2),), (make("text", (3,), seed=3),)]
        ).layout
    ),
    "a codec's items": lambda make: items_layout.__wrapped__((20, 3, 12), block=4, window=8, attention="block_causal"),
    "a codec's cuts": lambda make: cut_layout((20, 3, 12), ((1, 3), (), (0,)), block=4, window=8),
}


@pytest.mark.parametrize("backend", ["matrix", "sdpa"], indirect=True)
@pytest.mark.parametrize("name", LAYOUTS)
def test_values_and_gradients_equal_the_formula(
    make_segment, backend: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = LAYOUTS[name](make_segment)
    monkeypatch.setattr(rows, "LONG", 1)
    apart = LAYOUTS[name](make_segment)
    assert len(apart.parts) > len(together.parts)
    assert torch.equal(seen_by(apart), seen_by(together))
    assert_like_the_formula(apart)


@pytest.mark.usefixtures("double")
def test_losses_are_those_of_each_sequence_by_itself(make_prior, make_segment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through all layers, and the last one, which leaves out the clean copies."""
    monkeypatch.setattr(rows, "LONG", 4)
    prior = make_prior({"text": 3})
    sequences = [(make_segment("text", (4,) * count, seed=count),) for count in (2, 7, 1, 6)]
    whole = pack(sequences)
    assert len(whole.layout.parts) > 2
    parts = [flow_losses(prior, pack([one]))["text"] * sum(one[0].block_lengths) for one in sequences]
    found, wanted = flow_losses(prior, whole)["text"], sum(parts) / 64
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    gradients, true = (torch.autograd.grad(loss, list(prior.parameters())) for loss in (found, wanted))
    for one, two in zip(gradients, true, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_a_long_sequence_does_not_make_short_ones_expensive(make_segment) -> None:
    """With one rectangle for all they would cost twenty times as much."""
    with torch.device("meta"):
        prior = Prior(PriorConfig(layers=2, width=64, heads=1), {"text": 3})
    sequences = [(make_segment("text", (16,) * count, seed=count),) for count in (64, *[2] * 15)]

    def cost(some: list) -> int:
        batch = pack(some).to(torch.device("meta"))
        return count_flops(lambda: flow_losses(prior, batch)["text"].backward())

    assert cost(sequences) < 1.1 * (cost(sequences[:1]) + cost(sequences[1:]))


def test_who_shares() -> None:
    assert alike([7, 7, 3]) == [[0, 1, 2]]  # none is long
    assert alike([1024, 16, 900, 192, 16]) == [[0, 2], [1, 3, 4]]
    assert alike([240, 16]) == [[0, 1]]  # 192 is nearly as long as 240
    assert alike([1000, 1000], [16, 1000]) == [[0], [1]]
    assert alike([1000, 900, 800, 720, 640]) == [[0, 1, 2], [3, 4]]
