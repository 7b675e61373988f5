"""Checks of the latents' layout: shapes, blocks, positions and units, of what is encoded and of what is planned.

Axes: L latents of one item, C channels, A position axes.
"""

from __future__ import annotations

from itertools import islice

import torch

from colatent.plugins.contract import MeasuredCodec
from colatent.plugins.latents import BlockPlan, PlanRequest
from colatent.testing.requiring import SkippedError, like_record, require, same, tensor_like
from colatent.testing.running import check
from colatent.testing.subject import EXAMPLES, Subject, default_options


@check(vital=True)
def examples(subject: Subject) -> None:
    """`example_batch(n)` gives n items, always the same."""
    require(len(subject.items) == EXAMPLES, f"example_batch({EXAMPLES}) gives {len(subject.items)} items")
    torch.manual_seed(1)  # they must not hang on the state that the first were drawn in
    again = subject.codec.example_batch(EXAMPLES)
    require(same(subject.items, again), "example_batch gives other items the second time")


@check(vital=True)
def records(subject: Subject) -> None:
    """`encode` gives one finite float32 posterior per item, in blocks as `latent_spec()` says."""
    require(len(subject.encoded) == EXAMPLES, f"{EXAMPLES} items give {len(subject.encoded)} records")
    for record in subject.encoded:
        like_record(record, channels=subject.spec.channels, block=subject.spec.block)


@check(vital=True)
def positions(subject: Subject) -> None:
    """Every latent has a position on each declared axis, counted from the item's start."""
    for record in subject.encoded:
        tensor_like("positions_LA", record.positions_LA, (len(record.mean_LC), subject.info.axes), torch.float32)
        require(bool((record.positions_LA >= 0).all()), "a position is before the item's start")


@check(vital=True)
def units(subject: Subject) -> None:
    """Units count the data in each latent, at about the rate of `latent_spec()`, and 0 marks padding."""
    for record in subject.encoded:
        tensor_like("units_L", record.units_L, (len(record.mean_LC),), torch.int64)
        require(bool((record.units_L >= 0).all()), "a latent has a negative number of units")
        require(int(record.units_L.sum()) > 0, "an item's units sum to 0: all of it would be padding")
    held_N = torch.cat([record.units_L[record.units_L > 0] for record in subject.encoded]).float()
    rate, said = float(held_N.mean()), subject.spec.units_per_latent
    require(said / 2 <= rate <= said * 2, f"{rate:.3g} units per latent on average, latent_spec() says {said:.3g}")


@check()
def measure(subject: Subject) -> None:
    """`lengths` tells how many latents `encode` gives each item, and of no items nothing."""
    if not isinstance(subject.codec, MeasuredCodec):
        raise SkippedError("does not tell lengths without encoding (MeasuredCodec)")
    said, found = subject.codec.lengths(subject.items), [len(record.mean_LC) for record in subject.encoded]
    require(said == found, f"lengths gives {said!r}, and the items have {found} latents")
    require(subject.codec.lengths([]) == [], "lengths([]) gives something")


@check()
def plan(subject: Subject) -> None:
    """`plan` yields blocks as `encode` would lay them out, with a budget and without."""
    options = default_options(subject.codec)
    for max_units in (None, 1):
        plans = list(islice(subject.codec.plan(PlanRequest(max_units=max_units, options=options)), EXAMPLES))
        require(len(plans) > 0, "plans no block")
        for block in plans:
            require(isinstance(block, BlockPlan), f"yields {type(block).__name__}, not BlockPlan")
            tensor_like("positions_LA", block.positions_LA, (block.length, subject.info.axes), torch.float32)
            require(subject.spec.block in (None, block.length), f"a block of {block.length}, not {subject.spec.block}")
        if subject.spec.block is not None:
            first = subject.encoded[0].positions_LA[: subject.spec.block].cpu()
            agree = torch.equal(plans[0].positions_LA, first)
            require(agree, "the first block's positions are not those that encode gives")


@check()
def finished(subject: Subject) -> None:
    """`finished` answers yes or no."""
    for latents in subject.latents():
        ended = subject.codec.finished(latents)
        require(isinstance(ended, bool), f"gives {type(ended).__name__}, not bool")
