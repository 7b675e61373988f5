"""The decode stream of codecs that do not stream: keep the latents, decode whole items at the end.

Such a codec cannot tell where the given part of an item ends once it is decoded, so an item that was begun comes back
whole: what was given and what was generated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from colatent.generate.prefix import split_own
from colatent.plugins.contract import Codec
from colatent.plugins.latents import Encoded, Item, Latents
from colatent.plugins.streaming import Part


class CollectingStream:
    """Latents of B items, gathered block after block."""

    def __init__(self, codec: Codec, given: Sequence[Encoded | None]) -> None:
        self.codec = codec
        self._latents: list[Latents | None] = [None] * len(given)
        self._told = [False] * len(given)
        for number, record in enumerate(given):
            if record is not None and (begun := whole_blocks(record)) is not None:
                self._latents[number] = begun

    def push(self, blocks: Sequence[Latents]) -> None:
        """See `DecodeStream.push`."""
        self._latents = list(self._with(blocks))

    def finished(self) -> list[bool]:
        """See `DecodeStream.finished`."""
        return [latents is not None and self.codec.finished(latents) for latents in self._latents]

    def items(self) -> list[Item]:
        """See `DecodeStream.items`."""
        latents = [latents for latents in self._latents if latents is not None]
        assert len(latents) == len(self._latents), "nothing was generated"
        return self.codec.decode(latents)

    def details(self) -> list[dict[str, Any]]:
        """See `DecodeStream.details`."""
        return [{} for _ in self._latents]

    def news(self, *, final: bool = False) -> list[Part]:
        """See `DecodeStream.news`: nothing before the end, then the whole item."""
        due = [(final or over) and not told for over, told in zip(self.finished(), self._told, strict=True)]
        self._told = [told or now for told, now in zip(self._told, due, strict=True)]
        items = self.items() if any(due) else [None] * len(due)
        return [Part(item=item if now else None, details={}) for item, now in zip(items, due, strict=True)]

    def preview(self, blocks: Sequence[Latents]) -> list[Item]:
        """See `DecodeStream.preview`."""
        return self.codec.decode(list(self._with(blocks)))

    def _with(self, blocks: Sequence[Latents]) -> Iterator[Latents]:
        for before, block in zip(self._latents, blocks, strict=True):
            yield block if before is None else join(before, block)


def whole_blocks(own: Encoded) -> Latents | None:
    """The whole blocks of an item's beginning; a partial one comes back with the first block that is generated."""
    whole, count, _ = split_own(own)
    if not whole:
        return None
    return Latents(
        z_LC=own.mean_LC[:whole], block_lengths=own.block_lengths[:count], positions_LA=own.positions_LA[:whole]
    )


def join(before: Latents, after: Latents) -> Latents:
    """One item's latents with a block appended."""
    return Latents(
        z_LC=torch.cat([before.z_LC, after.z_LC]),
        block_lengths=before.block_lengths + after.block_lengths,
        positions_LA=torch.cat([before.positions_LA, after.positions_LA]),
    )
