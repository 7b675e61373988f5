"""When a block is committed: before the next one and never after the last, which changes no bit of what is made."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from sampling import CHANNELS, Eager, Lines, given, record, request

from colatent.generate.engine import BlockSampler
from colatent.generate.requests import Request, Settings
from colatent.plugins.contract import BlockPlan, Encoded, PlanRequest
from colatent.prior.dit import Prior

NAMES = [("empty",), ("partial", "two blocks", "empty"), ("three and a bit",)]


class Three(Lines):
    """A plan of three blocks, which ends by itself."""

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        return islice(super().plan(request), 3)


def made_by(
    kind: type[BlockSampler],
    prior: Prior,
    requests: list[Request],
    *,
    plan: Lines,
    blocks: int | None,
    **settings: object,
) -> tuple[list[torch.Tensor], int]:
    """Latents of every block and sample, and how many passes they took."""
    chosen = Settings(**({"steps": 2, "solver": "euler", "guidance": 3.0} | settings))  # type: ignore[arg-type]
    passes: list[int] = []
    hook = prior.enter["text"].register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    sampler = kind(prior, plan, requests, settings=chosen, window=10)  # type: ignore[arg-type]
    made = [one.z_LC for block in islice(sampler, blocks) for one in block]
    hook.remove()
    return made, len(passes)


@torch.no_grad()
@pytest.mark.parametrize(("plan", "blocks"), [(Lines(), 1), (Lines(), 4), (Three(), None)], ids=["1", "4", "plan"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("names", NAMES)
def test_the_same_bits_with_one_pass_less(
    make_prior, names: tuple[str, ...], guidance: float, plan: Lines, blocks: int | None
) -> None:
    prior = make_prior({"text": CHANNELS})
    requests = [request(name, seed=seed) for seed, name in enumerate(names)]
    asked = {"plan": plan, "blocks": blocks, "guidance": guidance}
    found, passes = made_by(BlockSampler, prior, requests, **asked)
    truth, all_passes = made_by(Eager, prior, requests, **asked)
    assert len(found) == len(names) * (blocks or 3)
    assert all(map(torch.equal, found, truth))
    assert passes == all_passes - 1


@torch.no_grad()
@pytest.mark.parametrize("unconditional", ["alone", "condition"])
def test_the_same_bits_after_other_segments(make_prior, unconditional: str) -> None:
    prior = make_prior({"text": CHANNELS, "image": 5}, dual_layers=1)
    picture, note = record(6, seed=1, channels=5, block=6, axes=2), record(7, seed=2)
    assert isinstance(picture, Encoded)
    assert isinstance(note, Encoded)
    requests = [
        request(name, seed=seed, given=(given("image", picture), given("text", note)))
        for seed, name in enumerate(("partial", "two blocks"))
    ]
    asked = {"plan": Lines(), "blocks": 3, "unconditional": unconditional}
    found, passes = made_by(BlockSampler, prior, requests, **asked)
    truth, all_passes = made_by(Eager, prior, requests, **asked)
    assert all(map(torch.equal, found, truth))
    assert passes == all_passes - 1


@torch.no_grad()
def test_who_writes_into_a_block_does_not_change_the_next(make_prior) -> None:
    prior, settings = make_prior({"text": CHANNELS}), Settings(steps=2, solver="euler", guidance=3.0)
    kept, spoilt = (
        BlockSampler(prior, Lines(), [request("partial")], settings=settings, window=10)  # type: ignore[arg-type]
        for _ in range(2)
    )
    found = []
    for (block,), (other,) in islice(zip(kept, spoilt, strict=True), 3):
        found.append(torch.equal(block.z_LC, other.z_LC))
        other.z_LC.zero_()
    assert found == [True] * 3
