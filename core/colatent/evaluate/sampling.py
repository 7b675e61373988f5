"""What a model generates for held-out samples, and the files that it becomes.

Every stream that a source generates is asked for: after the items that come before it in that source's sequences, each
time another held-out sample's, and from nothing where it comes first. What is drawn is a function of the weights and
the settings alone, so that one step's samples can be laid beside another's.

    SOURCE/STREAM/samples.jsonl      a record for each: what was given, and what came of it
    SOURCE/STREAM/STREAM-0.png ...   items that do not print; the records name them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from colatent.config.sampling import SampleConfig
from colatent.config.schema import SegmentConfig
from colatent.data.mixture import Drawn
from colatent.data.sources import Sources
from colatent.data.streams import Stream, cut_items
from colatent.generate.model import Model
from colatent.generate.requests import Given
from colatent.jsons import json_text
from colatent.plugins.contract import Codec, Spelled
from colatent.plugins.items import FileCodec
from colatent.plugins.latents import Item
from colatent.prior.dit import Prior

COUNT = 4
"""Samples of each stream of a source."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Items of one stream of a source, what each was generated after, and the codecs of all, by stream."""

    codecs: Mapping[str, Codec]
    source: str
    stream: str
    items: Sequence[Item]
    given: Sequence[Sequence[Given]]


def draw_samples(
    prior: Prior,
    codecs: Mapping[str, Codec],
    *,
    sample: SampleConfig,
    window: int,
    sources: Sources,
    streams: Mapping[str, Stream],
) -> list[Sampled]:
    """Samples of all that is generated, by prior and codecs as they are."""
    # Weights move on after these few: nothing that is recorded here would be replayed often.
    model, found = Model(prior=prior, codecs=codecs, sample=sample, window=window, replay=False), []
    for source, drawn in sources.held(COUNT, seed=0).items():
        segments = sources.segments[source]
        # Of several items of a stream the last is the one with most before it.
        targets = {one.stream: place for place, one in enumerate(segments) if one.role == "generated"}
        for stream, place in targets.items():
            given = [_given(segments[:place], each, streams) for each in drawn]
            items = _generate(model, given, target=stream)
            found.append(Sampled(codecs=codecs, source=source, stream=stream, items=items, given=given))
    return found


def _given(segments: Sequence[SegmentConfig], drawn: Drawn, streams: Mapping[str, Stream]) -> list[Given]:
    """A sample's items in these segments, as training would have them."""
    return [
        Given(one.stream, cut_items(streams[one.stream], [drawn])[0], same_group=one.same_group) for one in segments
    ]


def _generate(model: Model, given: Sequence[Sequence[Given]], *, target: str) -> list[Item]:
    """An item after each of these; from nothing, so many samples of one prompt, or they would all be the same."""
    alone = not given[0]
    results = model.generate_many(given[:1] if alone else given, n=len(given) if alone else 1, target=target)
    return [result.item for some in results for result in some]


def write_samples(sampled: Sequence[Sampled], folder: Path) -> None:
    """Write samples into a folder; those that neither print nor go into files are left out."""
    for some in sampled:
        if not isinstance(some.codecs[some.stream], Spelled | FileCodec):
            continue
        place = folder / some.source / some.stream
        place.mkdir(parents=True)
        lines = (json_text(record) + "\n" for record in _records(some, place))
        (place / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def _records(some: Sampled, place: Path) -> Iterator[dict[str, str]]:
    """What was given and what came of it, by stream, as text or as the name of a file that is written here."""
    for number, (item, given) in enumerate(zip(some.items, some.given, strict=True)):
        record = {
            f"given {one.stream}": _said(some.codecs[one.stream], one.item, place / f"given-{number}-{one.stream}-{at}")
            for at, one in enumerate(given)
        }
        record[some.stream] = _said(some.codecs[some.stream], item, place / f"{some.stream}-{number}")
        yield {name: said for name, said in record.items() if said is not None}


def _said(codec: Codec, item: Item, path: Path) -> str | None:
    """An item as text, or the name of the file that it is written to."""
    if isinstance(codec, Spelled):
        return str(item)
    return codec.write_item(item, path).name if isinstance(codec, FileCodec) else None
