"""Checks of what encoding and decoding do: for an item alone or among others, for odd and no items, time and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from colatent.plugins.contract import RaggedCodec, TrainableCodec
from colatent.testing.process import seeded
from colatent.testing.requiring import SkippedError, is_array, like_record, means, require, same, same_record
from colatent.testing.running import check
from colatent.testing.subject import Subject

MANY = 7
"""Items of a batch that has more than one of each kind: `example_batch` varies them."""


@check()
def independence(subject: Subject) -> None:
    """What an item becomes does not depend on the other items of its batch, nor on their order."""
    backwards = subject.codec.encode(subject.items[::-1])[::-1]
    whole = subject.codec.decode(subject.latents())
    for number, record in enumerate(subject.encoded):
        (alone,) = subject.codec.encode([subject.items[number]])
        same_record(alone, record, "in a batch and alone")
        same_record(backwards[number], record, "in a batch and in its reverse")
        (item,) = subject.codec.decode([record.sample(None)])
        require(same(item, whole[number]), "latents decode to another item in a batch and alone")


@check()
def lengths(subject: Subject) -> None:
    """Batches of any size work, the empty one too, and give as many records and items."""
    for name in ("encode", "decode"):
        found = _of_none(getattr(subject.codec, name), name)
        require(found == [], f"{name}([]) gives {found!r}, not []")
    items = subject.codec.example_batch(MANY)
    require(len(items) == MANY, f"example_batch({MANY}) gives {len(items)} items")
    records = subject.codec.encode(items)
    require(len(records) == MANY, f"{MANY} items give {len(records)} records")
    for record in records:
        like_record(record, channels=subject.spec.channels, block=subject.spec.block)
    decoded = len(subject.codec.decode(means(records)))
    require(decoded == MANY, f"{MANY} records give {decoded} items")


@check()
def cuts(subject: Subject) -> None:
    """An item cut after any number of latents has so many, and `encode_cut` tells how its last block is encoded."""
    codec, spec = subject.codec, subject.spec
    if not isinstance(codec, RaggedCodec):
        raise SkippedError("its items do not end inside a block (RaggedCodec)")
    item, record = max(zip(subject.items, subject.encoded, strict=True), key=lambda pair: len(pair[1].mean_LC))
    for length in range(int((record.units_L > 0).sum())):
        (short,) = codec.cut([item], [length])
        (found,) = codec.encode([short])  # type: ignore[attr-defined]
        like_record(found, channels=spec.channels, block=spec.block, empty=True)
        held = int((found.units_L > 0).sum())
        require(held == length, f"an item cut after {length} latents has {held}")
        block = spec.block or len(record.mean_LC)
        number, within = divmod(length, block)
        if within:
            cut = [within if each == number else 0 for each in range(len(record.block_lengths))]
            (told_LC,) = codec.encode_cut([item], [cut])
            start, stop = number * block, (number + 1) * block
            agree = torch.allclose(told_LC[start:stop], found.mean_LC[start:stop], atol=1e-4)
            require(agree, f"encode_cut and encode of the cut item differ after {length} latents")


@check()
def determinism(subject: Subject) -> None:
    """Encoding, decoding and losses repeat exactly: `generator` is their only source of randomness."""
    with seeded(1):
        first = _outcome(subject)
    with seeded(2):
        again = _outcome(subject)
    for one, other in zip(first["records"], again["records"], strict=True):
        same_record(one, other, "the second time")
    for what in ("items", "losses"):
        require(same(first[what], again[what], within=0.0), f"{what} differ the second time")


@check()
def round_trip(subject: Subject) -> None:
    """`decode` gives items of the kind that `encode` takes; where a block is a whole item, of the same shape."""
    decoded = subject.codec.decode(subject.latents())
    require(len(decoded) == len(subject.items), f"{len(subject.items)} records give {len(decoded)} items")
    for item, again in zip(subject.items, decoded, strict=True):
        kinds = type(item).__name__, type(again).__name__
        require(kinds[0] == kinds[1], f"encode takes {kinds[0]}, decode gives {kinds[1]}")
        if is_array(item):
            require(item.dtype == again.dtype, f"an item of {item.dtype} comes back as {again.dtype}")
            free = subject.spec.block is not None and item.ndim == again.ndim
            shapes = tuple(item.shape), tuple(again.shape)
            require(free or shapes[0] == shapes[1], f"an item of shape {shapes[0]} comes back as {shapes[1]}")
    subject.codec.encode(decoded)


def _of_none(method: Callable[[list[Any]], Any], name: str) -> Any:
    try:
        return method([])
    except Exception as error:  # whatever a loop over nothing runs into
        require(False, f"{name}([]) raises {type(error).__name__}: {error}")


def _outcome(subject: Subject) -> dict[str, Any]:
    """All that comes of the example items, drawn from generators that are always the same."""
    codec = subject.codec
    records = codec.encode(subject.items)
    records += codec.encode(subject.items, generator=torch.Generator().manual_seed(0))
    outcome = {"records": records, "items": codec.decode(subject.latents()), "losses": {}}
    if isinstance(codec, TrainableCodec):
        generator = torch.Generator().manual_seed(0)
        outcome["losses"] = codec.losses(subject.items, subject.latents(), generator=generator)
    return outcome
