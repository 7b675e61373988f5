"""Held-out items as latents in sequences: what a diagnosis looks at.

The items come from the run's own config, cut as in training; the posterior is sampled once per item, so that every
number of a diagnosis is about the same latents. Layout is that of training, without its randomness: nothing is pinned,
no history is dropped, and every noise level is said by who measures.

Axes: L latents of an item, C channels, K blocks, N latents that hold data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from colatent.config.sampling import SampleConfig
from colatent.config.schema import RunConfig, SegmentConfig
from colatent.data.facts import check_facts
from colatent.data.mixture import Drawn
from colatent.data.sources import open_sources, opener_of, origin_of
from colatent.data.streams import Stream, cut_items
from colatent.flow.objective import VelocityNetwork
from colatent.latents.draws import Name, normal
from colatent.latents.sequence import LatentSequence, Segment
from colatent.plugins.contract import Codec
from colatent.plugins.latents import Encoded, Item, Latents
from colatent.plugins.pluginset import PluginSet

BATCH = 16
"""Items or sequences that run together."""


class Diagnosable(Protocol):
    """What of a model is looked at; `generate.model.Model` has it."""

    @property
    def prior(self) -> VelocityNetwork: ...

    @property
    def codecs(self) -> Mapping[str, Codec]: ...

    @property
    def sample(self) -> SampleConfig: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldItem:
    """One held-out item with its latents, on the CPU.

    key     names its randomness: sample and place in the sequence
    record  its posterior at unit scale
    z_LC    one sample of it
    """

    key: str
    item: Item
    record: Encoded
    z_LC: Tensor

    def latents(self, z_LC: Tensor) -> Latents:
        """Other latents in this item's layout."""
        return Latents(z_LC=z_LC, block_lengths=self.record.block_lengths, positions_LA=self.record.positions_LA)

    @property
    def holds_L(self) -> Tensor:
        """Which latents hold data. Bool (L,)."""
        return self.record.units_L > 0


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldSequence:
    """One sequence as in training: its source, each segment's item, and how it stands there."""

    source: str
    items: tuple[HeldItem, ...]
    segments: tuple[SegmentConfig, ...]

    def at(self, t: float, *, seed: int, alone: bool = False) -> LatentSequence:
        """Latents with every generated block at noise level `t`; with `alone`, no block sees any history. The noise is
        the same at every t."""
        return tuple(
            _segment(one, config, t, noise_of(one, seed), alone=alone)
            for one, config in zip(self.items, self.segments, strict=True)
        )

    def generated(self) -> list[tuple[int, str, HeldItem]]:
        """(number of the segment, stream, item) of what is generated."""
        pairs = enumerate(zip(self.segments, self.items, strict=True))
        return [(number, c.stream, one) for number, (c, one) in pairs if c.role == "generated"]


def _segment(one: HeldItem, config: SegmentConfig, t: float, noise_LC: Tensor, *, alone: bool) -> Segment:
    blocks = len(one.record.block_lengths)
    segment = Segment(
        stream=config.stream,
        z_LC=one.z_LC,
        block_lengths=one.record.block_lengths,
        positions_LA=one.record.positions_LA,
        generated=False,
        same_group=config.same_group,
        weight_L=one.holds_L.float(),
    )
    if config.role != "generated":
        return segment
    return replace(segment, generated=True, noise_LC=noise_LC, t_K=(t,) * blocks, alone_K=(alone,) * blocks)


def noise_of(one: HeldItem, seed: int, *purpose: Name) -> Tensor:
    """Standard normal noise of an item's shape: a function of seed, item and purpose."""
    return normal(one.z_LC.shape, seed, "diagnosis", one.key, "noise", *purpose)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Everything that is looked at: sequences, and by stream the items in them."""

    seed: int
    sequences: tuple[HeldSequence, ...]
    items: Mapping[str, tuple[HeldItem, ...]]

    def generated(self) -> dict[str, list[HeldItem]]:
        """Items that are generated, by stream."""
        found: dict[str, list[HeldItem]] = {}
        for sequence in self.sequences:
            for _, stream, one in sequence.generated():
                found.setdefault(stream, []).append(one)
        return {name: found[name] for name in self.items if name in found}


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedData:
    """Held-out samples of a config, and what is needed to read them: streams, and each source's order of them."""

    drawn: tuple[Drawn, ...]
    streams: Mapping[str, Stream]
    segments: Mapping[str, tuple[SegmentConfig, ...]]


def open_held_out(
    config: RunConfig,
    *,
    codecs: Mapping[str, Codec],
    names: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    plugins: PluginSet,
    n: int,
    seed: int,
) -> OpenedData:
    """The first `n` held-out samples of each source of `config`, of which the data section and the
    streams' fields are used.

    codecs    the model's, by stream
    names     their names among the plugins, by stream
    settings  theirs, by stream; a source of files needs them to open any
    """
    infos = {stream: plugins.codec(name, where=f"streams.{stream}") for stream, name in names.items()}
    sources = open_sources(config, plugins, infos)
    for stream, some in settings.items():
        sources.open_with(stream, opener_of(names[stream], some, plugins=plugins))
    check_facts(sources, codecs)
    origins = {name: origin_of(config, name) for name in config.data.sources}
    streams = {
        name: Stream(name=name, field=sources.fields[name], length=config.data.length, codec=codec, origins=origins)
        for name, codec in codecs.items()
    }
    drawn = tuple(one for some in sources.held(n, seed=seed).values() for one in some)
    return OpenedData(drawn=drawn, streams=streams, segments=sources.segments)


def hold_out(data: OpenedData, *, seed: int) -> HeldOut:
    """Held-out samples, encoded."""
    return encode_samples(data.drawn, streams=data.streams, segments=data.segments, seed=seed)


@torch.no_grad()
def encode_samples(
    drawn: Sequence[Drawn],
    *,
    streams: Mapping[str, Stream],
    segments: Mapping[str, tuple[SegmentConfig, ...]],
    seed: int,
) -> HeldOut:
    """Every segment's item encoded; `segments` gives each source's order of streams."""
    places = [(number, index, c.stream) for number, one in enumerate(drawn) for index, c in _numbered(segments, one)]
    held: dict[tuple[int, int], HeldItem] = {}
    items: dict[str, tuple[HeldItem, ...]] = {}
    for name, stream in streams.items():
        mine = [(number, index) for number, index, other in places if other == name]
        keys = [f"{drawn[number].key}/{index}" for number, index in mine]
        found = encode_items(stream.codec, cut_items(stream, [drawn[number] for number, _ in mine]), keys, seed=seed)
        held |= zip(mine, found, strict=True)
        if found:
            items[name] = tuple(found)
    sequences = tuple(
        HeldSequence(
            source=one.source,
            items=tuple(held[number, index] for index, _ in _numbered(segments, one)),
            segments=segments[one.source],
        )
        for number, one in enumerate(drawn)
    )
    return HeldOut(seed=seed, sequences=sequences, items=items)


def _numbered(segments: Mapping[str, tuple[SegmentConfig, ...]], one: Drawn) -> list[tuple[int, SegmentConfig]]:
    return list(enumerate(segments[one.source]))


def encode_items(codec: Codec, items: Sequence[Item], keys: Sequence[str], *, seed: int) -> list[HeldItem]:
    """Items with their posteriors and one sample of each."""
    found = []
    for start in range(0, len(items), BATCH):
        records = codec.encode(items[start : start + BATCH])
        for item, key, record in zip(items[start : start + BATCH], keys[start : start + BATCH], records, strict=True):
            mine = record.on_cpu()
            z_LC = mine.sample(normal(mine.mean_LC.shape, seed, "diagnosis", key, "posterior")).z_LC
            found.append(HeldItem(key=key, item=item, record=mine, z_LC=z_LC))
    return found
