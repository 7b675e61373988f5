"""Counted FLOPs of the prior against torch's counter over the real passes, less what those compute for nothing."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from colatent.config.prior import PriorConfig
from colatent.evaluate.flops import PassWork, count_flops, generation_flops, training_flops, two_copy_work
from colatent.flow.objective import flow_losses
from colatent.generate.engine import BlockSampler
from colatent.generate.requests import Request, Settings
from colatent.latents.packing import pack
from colatent.latents.sequence import Segment, blocks_of, two_copy_mask
from colatent.plugins.contract import BlockPlan, Encoded
from colatent.prior.dit import Prior

WIDTH, CHANNELS, BLOCK = 16, 3, 4
QUERY, PAIR = 2 * WIDTH**2, 4 * WIDTH
"""FLOPs of a row's query, and of a pair of query and key."""


def segment(stream: str, blocks: tuple[int, ...], *, channels: int = CHANNELS, generated: bool = True) -> Segment:
    length = sum(blocks)
    return Segment(
        stream=stream,
        z_LC=torch.randn(length, channels),
        block_lengths=blocks,
        positions_LA=torch.arange(length, dtype=torch.float32)[:, None],
        generated=generated,
        noise_LC=torch.randn(length, channels) if generated else None,
        t_K=tuple((number + 1) / 20 for number in range(len(blocks))) if generated else (),
    )


def test_pairs_are_those_of_the_mask() -> None:
    sequence = (
        segment("given", (3, 2), generated=False),
        segment("made", (4, 1, 2)),
        segment("given", (2,), generated=False),
    )
    work, blocks = two_copy_work([sequence]), blocks_of(sequence)
    noisy = blocks.generated_L.nonzero()[0]
    clean = (blocks.group_L < blocks.group_L[noisy].max()).nonzero()[0]
    mask = two_copy_mask(blocks, clean=clean, noisy=noisy)
    assert work == PassWork(
        rows={"given": 5, "made": 5 + 7},
        asked={"made": 7},
        pairs=int(mask.sum()),
        asked_pairs=int(mask[len(clean) :].sum()),
    )


@pytest.mark.parametrize("dual", [0, 1])
def test_training_is_what_the_passes_do_less_what_masks_throw_away_and_queries_that_nobody_asks(dual: int) -> None:
    config = PriorConfig(layers=2 - dual, dual_layers=dual, width=WIDTH, heads=2)
    prior, blocks = Prior(config, {"text": CHANNELS}), 5
    sequences = [(segment("text", (BLOCK,) * blocks),)]
    done = count_flops(lambda: flow_losses(prior, pack(sequences))["text"].backward())
    length = BLOCK * blocks
    clean = length - BLOCK
    hidden = length * clean - BLOCK**2 * blocks * (blocks - 1) // 2  # from the noisy copy, in both layers
    masked = clean * (clean - BLOCK) // 2 + 2 * hidden
    # Queries come with keys and values; in the last layer those of the clean copy are not used.
    assert training_flops(config, prior.channels, sequences) == done - 3 * (masked * PAIR + clean * QUERY)


class Lines:
    """The plan of a codec whose blocks are `BLOCK` latents."""

    def plan(self, request: object):
        return (
            BlockPlan(length=BLOCK, positions_LA=torch.arange(start, start + BLOCK)[:, None].float())
            for start in range(0, 1000, BLOCK)
        )


@pytest.mark.parametrize(("guidance", "branches"), [(1.0, 1), (3.0, 2)])
@pytest.mark.parametrize("given", [0, 2])
def test_generation_is_what_the_passes_do_less_what_only_caches_need(
    given: int, guidance: float, branches: int
) -> None:
    config, batch, blocks, steps = PriorConfig(layers=2, width=WIDTH, heads=2), 2, 3, 5
    prior, length = Prior(config, {"text": CHANNELS}), given * BLOCK
    own = Encoded(
        mean_LC=torch.randn(length, CHANNELS),
        logvar_LC=None,
        block_lengths=(BLOCK,) * given,
        positions_LA=torch.arange(length, dtype=torch.float32)[:, None],
        units_L=torch.ones(length, dtype=torch.int64),
    )
    requests = [Request(target="text", own=own if given else None, names=(number,)) for number in range(batch)]
    settings = Settings(steps=steps, solver="euler", guidance=guidance)

    def generate() -> None:
        list(islice(BlockSampler(prior, Lines(), requests, settings=settings, window=1000), blocks))  # type: ignore[arg-type]

    unasked = batch * (given + blocks - 1) * BLOCK * QUERY  # rows of prefix and commits, in the last layer
    pairs = [(number + 1) * BLOCK**2 for number in range(given + blocks)]
    masked = batch * (length**2 - sum(pairs[:given]))  # in the first layer of the prefix
    found = generation_flops(
        config,
        prior.channels,
        "text",
        batch=batch,
        given=(BLOCK,) * given,
        blocks=(BLOCK,) * blocks,
        evaluations=steps,
        guided=branches == 2,
        window=1000,
    )
    assert found == count_flops(generate) - unasked - masked * PAIR
