"""The items of one stream among samples, as everything that looks at them takes them: training and evaluation alike.

Items are cut here, to the length that a prior is trained on, so that a score on held-out items is of what training saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from colatent.data.mixture import Drawn
from colatent.errors import UserError
from colatent.plugins.contract import Codec, RaggedCodec
from colatent.plugins.latents import Item


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stream of a run.

    name    its name
    field   the sample field that holds its item
    length  latents of one item at most; longer items are cut where the codec can
    codec   turns items into latents
    origins how errors call a source, by its name
    """

    name: str
    field: str
    length: int
    codec: Codec
    origins: Mapping[str, str]


def cut_items(stream: Stream, drawn: Sequence[Drawn]) -> list[Item]:
    """The samples' items, no longer than the stream's training length where its codec can cut. An item that the codec
    refuses is told by its source."""
    items = [one.sample[stream.field] for one in drawn]
    if not isinstance(stream.codec, RaggedCodec):
        return items
    cut = []
    for one, item in zip(drawn, items, strict=True):
        try:
            cut += stream.codec.cut([item], [stream.length])
        except UserError as error:
            raise refused(stream, one, error) from error
    return cut


def refused(stream: Stream, one: Drawn, error: UserError) -> UserError:
    """What a stream's codec says of an item, told by the item's source."""
    what = f"stream {stream.name!r} refuses sample {one.key}: {error.what}"
    return UserError(what, where=stream.origins[one.source], do=error.do)
