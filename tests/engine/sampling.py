"""Random prompts of every awkward length, and the block sampler run on them: the subject of the generation tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice

import torch
from torch import Tensor

from colatent.generate.engine import BlockSampler
from colatent.generate.events import Made, Step
from colatent.generate.requests import GivenLatents, Request, Settings
from colatent.plugins.contract import BlockPlan, Encoded, PlanRequest
from colatent.prior.dit import Prior

BLOCK, CHANNELS = 4, 3
LENGTHS = {
    "empty": 0,
    "shorter than a block": 3,
    "exact block": 4,
    "partial": 6,
    "two blocks": 8,
    "three and a bit": 13,
}


class Lines:
    """The plan of a codec of one axis: blocks without end after the item's own whole blocks."""

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        done = 0 if request.given is None else int((request.given.units_L > 0).sum()) // BLOCK * BLOCK
        for start in count(done, BLOCK):
            yield BlockPlan(
                length=BLOCK, positions_LA=torch.arange(start, start + BLOCK).to(torch.get_default_dtype())[:, None]
            )


class Eager(BlockSampler):
    """The slow reference: commits each block as soon as it is made, whether one follows or not."""

    def _block(self, plans: Sequence[BlockPlan]) -> Iterator[Step | Made]:
        for event in super()._block(plans):
            if isinstance(event, Made):
                assert self._commit is not None
                self._commit()
                self._commit = None
            yield event


def record(length: int, *, seed: int, channels: int = CHANNELS, block: int = BLOCK, axes: int = 1) -> Encoded | None:
    """An encoded item of `length` latents, padded to whole blocks; None where it is empty."""
    if not length:
        return None
    total = -(-length // block) * block
    number = torch.arange(total).to(torch.get_default_dtype())
    return Encoded(
        mean_LC=torch.randn(total, channels, generator=torch.Generator().manual_seed(seed)),
        logvar_LC=None,
        block_lengths=(block,) * (total // block),
        positions_LA=number[:, None] if axes == 1 else torch.stack([number // 3, number % 3], dim=1),
        units_L=(torch.arange(total) < length).long(),
    )


def given(stream: str, latents: Encoded, *, same_group: bool = False) -> GivenLatents:
    """A whole item before the one that is generated."""
    return GivenLatents(stream=stream, latents=latents, same_group=same_group)


def request(name: str, *, seed: int = 0, given: tuple[GivenLatents, ...] = ()) -> Request:
    """A request for what continues a prompt of the length that `name` stands for."""
    return Request(target="text", given=given, own=record(LENGTHS[name], seed=seed + 50), names=(seed, 1))


def generate(
    prior: Prior, requests: list[Request], *, blocks: int, window: int = 64, **settings: object
) -> list[Tensor]:
    """What the sampler makes of each request in `blocks` blocks, (L, C)."""
    chosen = Settings(**({"steps": 2, "solver": "euler", "guidance": 1.0, "unconditional": "alone"} | settings))  # type: ignore[arg-type]
    sampler = BlockSampler(prior, Lines(), requests, settings=chosen, window=window)  # type: ignore[arg-type]
    made = list(islice(sampler, blocks))
    return [torch.cat([block[item].z_LC for block in made]) for item in range(len(requests))]
