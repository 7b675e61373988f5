"""Requests that run together: which they are, and one such run from its first block to its results.

A run is a generator of what happens (steps of the solver, finished blocks). Whoever wants whole items runs it to the
end; whoever wants to look on asks between two events.

Axes: L latents of an item, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from colatent.errors import UserError
from colatent.generate.collect import CollectingStream, join
from colatent.generate.engine import BlockSampler
from colatent.generate.events import Made, Step
from colatent.generate.precision import Computing
from colatent.generate.prefix import prefix_lengths
from colatent.generate.replays import Kept
from colatent.generate.requests import Piece, Request, Result, Settings, State
from colatent.plugins.contract import Codec
from colatent.plugins.latents import Latents
from colatent.plugins.streaming import DecodeStream, StreamingCodec
from colatent.prior.dit import Prior

PLANNED = 10_000
"""Blocks of a plan that are compared with another's, where they may be of any length."""
LONGEST = 2**16
"""Latents of a block, which all look at one another: a picture of 2048 x 2048 pixels in squares of 8."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Numbers of the requests that run together, and the lengths of the blocks that each may come to generate."""

    numbers: tuple[int, ...]
    lengths: tuple[int, ...]


def batches(codecs: Mapping[str, Codec], requests: Sequence[Request], *, size: int) -> list[Batch]:
    """Batches of at most `size` items of one stream whose blocks are planned alike and that look back at equally much.
    So there is no padding between them, and each is rounded as it would be alone: a longer neighbour's padding shifts
    sums in the last bit, which the flow magnifies to 1e-4."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, request in enumerate(requests):
        lengths = block_lengths(codecs[request.target], request)
        groups.setdefault((request.target, prefix_lengths(request), lengths), []).append(number)
    return [
        Batch(numbers=tuple(some[start : start + size]), lengths=lengths)
        for (_, _, lengths), some in groups.items()
        for start in range(0, len(some), size)
    ]


def block_lengths(codec: Codec, request: Request) -> tuple[int, ...]:
    """Lengths of the blocks that a request may come to generate. A plan may be without end: where blocks are of one
    length, no more of them are asked for than the budget allows."""
    spec, plan, most = codec.latent_spec(), codec.plan(request.plan_request()), PLANNED
    if spec.block is not None and request.max_units is not None:
        # A prompt's partial block gives at least one unit, the others are whole.
        most = min(PLANNED, 1 + math.ceil(request.max_units / (spec.units_per_latent * spec.block)))
    lengths = tuple(block.length for block in islice(plan, most))
    if (longest := max(lengths, default=0)) > LONGEST:
        what = f"asks for {longest:,} latents in one block, more than {LONGEST:,}"
        raise UserError(what, where=f"stream {request.target!r}", do="ask for something smaller")
    return lengths


class Running:
    """One batch on its way."""

    def __init__(
        self,
        prior: Prior,
        codec: Codec,
        requests: Sequence[Request],
        *,
        settings: Settings,
        window: int,
        new: int,
        computing: Computing,
        kept: Kept | None = None,
    ) -> None:
        """`new`: latents that each request may come to generate. `kept`: see `BlockSampler`."""
        self._computing = computing
        with computing():
            self.stream = open_stream(codec, requests)
            if codec.latent_spec().block is None:  # blocks of any length
                kept = None
            self.sampler = BlockSampler(prior, codec, requests, settings=settings, window=window, new=new, kept=kept)
        self._empty = torch.zeros(0, self.sampler.channels)
        self._kept: list[Latents | None] = [None] * len(requests)

    def events(self) -> Iterator[Step | Made]:
        """Run until every item has ended or the plan has; each block is decoded when its event comes."""
        return self._computing.each(self._events())

    def _events(self) -> Iterator[Step | Made]:
        ended = self.stream.finished()
        if all(ended):
            return
        for event in self.sampler.events():
            if isinstance(event, Made):
                self._take(event.latents, ended)
                ended = self.stream.finished()
            yield event
            if all(ended):
                return

    def _take(self, blocks: Sequence[Latents], ended: Sequence[bool]) -> None:
        self.stream.push(blocks)
        # What an item gets while it waits for its neighbours is no part of it.
        self._kept = [
            before if over else block if before is None else join(before, block)
            for before, block, over in zip(self._kept, blocks, ended, strict=True)
        ]

    def results(self) -> list[Result]:
        """What came of it, once it has run."""
        with self._computing():
            items, details = self.stream.items(), self.stream.details()
        return [
            Result(item=item, details=facts, latents_LC=self._empty if latents is None else latents.z_LC)
            for item, facts, latents in zip(items, details, self._kept, strict=True)
        ]

    def pieces(self) -> Iterator[Piece]:
        """Run the only request of the batch, piece by piece."""
        return (event for event in self._follow() if isinstance(event, Piece))

    def states(self, *, decode: bool) -> Iterator[State | Piece]:
        """The same with the states between the solver's steps."""
        for event in self._follow():
            yield event if isinstance(event, Piece) else self._state(event, decode=decode)

    def _follow(self) -> Iterator[Step | Piece]:
        ended, number = False, 0
        for event in self.events():
            if isinstance(event, Made):
                ended, number = all(self.stream.finished()), event.block
                yield self._piece(number, last=ended)
            else:
                yield event
        if not ended:  # it had ended before its first block, or its plan stops before it says so
            yield self._piece(number, last=True)

    def _piece(self, block: int, *, last: bool) -> Piece:
        with self._computing():
            (part,) = self.stream.news(final=last)
        return Piece(block=block, item=part.item, details=part.details, last=last)

    def _state(self, step: Step, *, decode: bool) -> State:
        guess = step.clean()
        with self._computing():
            item = self.stream.preview(guess)[0] if decode else None
        return State(
            block=step.block,
            step=step.number,
            t=step.t,
            z_KC=step.z_BKC[0].cpu(),
            clean_KC=guess[0].z_LC,
            item=item,
        )


def open_stream(codec: Codec, requests: Sequence[Request]) -> DecodeStream:
    """The codec's own stream, or one that decodes at the end."""
    own = [request.own for request in requests]
    if not isinstance(codec, StreamingCodec):
        return CollectingStream(codec, own)
    first, names = requests[0], [request.names for request in requests]
    return codec.open_stream(own, max_units=first.max_units, options=first.options, names=names)
