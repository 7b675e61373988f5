"""The check of decoding block by block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from colatent.plugins.contract import Codec
from colatent.plugins.latents import Latents, PlanRequest
from colatent.plugins.streaming import StreamingCodec
from colatent.testing.requiring import SkippedError, is_array, require, same
from colatent.testing.running import check
from colatent.testing.subject import Subject, default_options


@check()
def streaming(subject: Subject) -> None:
    """Decoded block by block, alone or in a batch, an item is the sum of its pieces, and what `decode` gives unless it
    is drawn at random; a preview changes nothing."""
    codec: Codec = subject.codec
    if not isinstance(codec, StreamingCodec):
        raise SkippedError("its items are decoded whole (StreamingCodec)")
    latents = _long_items(subject)
    together = _stream(subject, latents, names=range(len(latents)))
    whole = codec.decode(latents)
    for number, record in enumerate(latents):
        (alone,) = _stream(subject, [record], names=[number], preview=True)
        require(same(alone, together[number]), "an item is another one in a batch and alone, or after a preview")
        (renamed,) = _stream(subject, [record], names=[number + len(latents)])
        fixed = same(alone, renamed)
        require(not fixed or same(alone, whole[number]), "an item is another one block by block and whole")


def _long_items(subject: Subject) -> list[Latents]:
    """Two items of as many blocks: where a block is no whole item, those of all example items, forwards and backwards,
    laid out as planned."""
    if subject.spec.block is None:
        longest = max(subject.latents(), key=lambda record: len(record.z_LC))
        return [longest, _negated(longest)]
    blocks = [block_KC for record in subject.latents() for block_KC in record.z_LC.split(subject.spec.block)]
    plans = list(islice(subject.codec.plan(PlanRequest(options=default_options(subject.codec))), len(blocks)))
    return [
        Latents(
            z_LC=torch.cat(some[: len(plans)]),
            block_lengths=tuple(plan.length for plan in plans),
            positions_LA=torch.cat([plan.positions_LA for plan in plans]),
        )
        for some in (blocks, blocks[::-1])
    ]


def _blocks(record: Latents, first: int, last: int) -> Latents:
    start, stop = (sum(record.block_lengths[:number]) for number in (first, last))
    return Latents(
        z_LC=record.z_LC[start:stop],
        block_lengths=record.block_lengths[first:last],
        positions_LA=record.positions_LA[start:stop],
    )


def _stream(subject: Subject, latents: list[Latents], *, names: Sequence[int], preview: bool = False) -> list[Any]:
    """The items that come of a stream, once it is seen that their pieces add up to them."""
    stream = subject.codec.open_stream(
        [None] * len(latents),
        max_units=None,
        options=default_options(subject.codec),
        names=[("checks", name) for name in names],
    )
    pieces: list[list[Any]] = [[] for _ in latents]
    count = len(latents[0].block_lengths)
    for number in range(count):
        blocks = [_blocks(record, number, number + 1) for record in latents]
        if preview:
            stream.preview([_negated(block) for block in blocks])
        stream.push(blocks)
        _take(stream.news(final=number + 1 == count), pieces)
    ended, details, items = stream.finished(), stream.details(), stream.items()
    flags = len(ended) == len(latents) and all(isinstance(each, bool) for each in ended)
    require(flags, f"finished() gives {ended!r}, not one bool per item")
    require(len(details) == len(latents), f"details() gives {len(details)} for {len(latents)} items")
    json.dumps(details)
    for item, some in zip(items, pieces, strict=True):
        require(same(_joined(some), item), "the pieces that news() gives do not add up to items()")
    return list(items)


def _negated(block: Latents) -> Latents:
    return Latents(z_LC=-block.z_LC, block_lengths=block.block_lengths, positions_LA=block.positions_LA)


def _take(parts: Sequence[Any], pieces: list[list[Any]]) -> None:
    for part, some in zip(parts, pieces, strict=True):
        if part.item is not None:
            some.append(part.item)


def _joined(pieces: list[Any]) -> Any:
    """Pieces in one: of an item that comes whole there is one piece."""
    require(bool(pieces), "news() gives no piece of an item")
    if len(pieces) == 1:
        return pieces[0]
    if is_array(pieces[0]):
        return np.concatenate([np.asarray(torch.as_tensor(piece)) for piece in pieces])
    joined = pieces[0]
    for piece in pieces[1:]:
        joined = joined + piece
    return joined
