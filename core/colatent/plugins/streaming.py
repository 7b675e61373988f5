"""Decoding while an item is being generated: block after block, each conditioned on what came before.

A codec that cannot do this is decoded whole, at an item's end. What streams keeps its state in an object of its own, so
that one codec decodes several requests at once.

Axes: B items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from colatent.plugins.latents import Encoded, Item, Latents


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is new of an item that is being decoded.

    item     to be appended to the parts before (text: a string, which may be empty); None where the item comes whole
             at its end and that is not reached yet
    details  the same facts as in `DecodeStream.details`, of this part
    """

    item: Item | None
    details: Mapping[str, Any]


@runtime_checkable
class DecodeStream(Protocol):
    """Conditional decoding of B items, block after block."""

    def push(self, blocks: Sequence[Latents]) -> None:
        """Decode the next block of each item."""
        ...

    def finished(self) -> list[bool]:
        """Which items have ended (end of item, or the unit budget)."""
        ...

    def items(self) -> list[Item]:
        """What was generated so far, without the given part and without what follows an end."""
        ...

    def details(self) -> list[dict[str, Any]]:
        """JSON-able facts per item for `--json` (token ids, ...)."""
        ...

    def news(self, *, final: bool = False) -> list[Part]:
        """What can be said of each item that was not said before. Parts joined are what `items` gives in the end, so
        what a later block may still change is held back, until the item has ended or with `final` (no block comes)."""
        ...

    def preview(self, blocks: Sequence[Latents]) -> list[Item]:
        """What `items` would give if these were the next blocks. Changes nothing."""
        ...


@runtime_checkable
class StreamingCodec(Protocol):
    """A codec that decodes block by block, each conditioned on what came before."""

    def open_stream(
        self,
        given: Sequence[Encoded | None],
        *,
        max_units: int | None,
        options: Mapping[str, Any],
        names: Sequence[tuple[int | str, ...]],
    ) -> DecodeStream:
        """Start decoding B items, each after its own given latents.

        max_units  budget in data units of each item, None for none
        options    see `OptionedCodec`
        names      of each item, by which all randomness of its decoding is drawn (`colatent.latents.draws`), so that an
                   item depends on them and never on its neighbours
        """
        ...
