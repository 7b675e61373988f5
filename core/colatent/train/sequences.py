"""From samples to sequences: encode each stream's items at once, then draw noise, times and prompts' ragged ends.

The two halves can be called apart: where codecs train, the very sample that the prior sees is also the one that the
codec's own losses are of. Without being asked for, there is no gradient.

Axes: L latents of an item, C channels, K blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from colatent.config.prior import FlowConfig
from colatent.config.schema import SegmentConfig
from colatent.data.cache_reading import LatentCache
from colatent.data.mixture import Drawn
from colatent.data.streams import Stream, cut_items
from colatent.flow.objective import draw_cuts, draw_lone, draw_noise
from colatent.latents.draws import Name, normal, torch_seed
from colatent.latents.sequence import LatentSequence, Segment
from colatent.plugins.contract import RaggedCodec
from colatent.plugins.latents import Encoded, Item, Latents


@dataclass(frozen=True)
class _Place:
    """Where one item stands: sample, segment, the names of its randomness, and those of its whole sequence's."""

    sample: int
    segment: int
    names: tuple[Name, ...]
    origin: tuple[Name, ...]


@dataclass(frozen=True, kw_only=True)
class EncodedItems:
    """All items of one stream in a batch, item by item.

    places   where each stands
    configs  the segment that it becomes
    items    the items, cut to the training length; none where records are cached and no item is needed
    records  their posteriors, as the codec gave them
    latents  the sample of each posterior that the core drew
    """

    stream: Stream
    places: Sequence[_Place]
    configs: Sequence[SegmentConfig]
    items: Sequence[Item]
    records: Sequence[Encoded]
    latents: Sequence[Latents]


def build_sequences(
    drawn: Sequence[Drawn],
    *,
    streams: Mapping[str, Stream],
    segments: Mapping[str, Sequence[SegmentConfig]],
    flow: FlowConfig,
    seed: int,
    cache: LatentCache | None = None,
) -> list[LatentSequence]:
    """One sequence per sample, without gradient; `segments` gives each source's order of streams. With a `cache` the
    posteriors are those that lie there, and items are read only where a block is to be cut."""
    if cache is None:
        return join_sequences(encode_streams(drawn, streams=streams, segments=segments, seed=seed), flow=flow)
    found = {}
    for name, stream in streams.items():
        if places := _places(name, drawn, segments, seed):
            samples = [drawn[place.sample] for place in places]
            again = cache.drawn_again(samples) if flow.ragged and isinstance(stream.codec, RaggedCodec) else []
            found[name] = _drawn_items(
                stream, places, drawn, segments, items=cut_items(stream, again), records=cache.records(name, samples)
            )
    return join_sequences(found, flow=flow)


def encode_streams(
    drawn: Sequence[Drawn],
    *,
    streams: Mapping[str, Stream],
    segments: Mapping[str, Sequence[SegmentConfig]],
    seed: int,
    trained: Collection[str] = (),
    randomness: Callable[[str], torch.Generator] | None = None,
) -> dict[str, EncodedItems]:
    """The items of every stream that the samples have, encoded and drawn.

    trained     streams whose latents carry a gradient to their codec
    randomness  for the encoders of those, by stream
    """
    found = {}
    for name, stream in streams.items():
        places = _places(name, drawn, segments, seed)
        if not places:
            continue
        items = cut_items(stream, [drawn[place.sample] for place in places])
        noisy = {"generator": randomness(name)} if randomness is not None and name in trained else {}
        with torch.set_grad_enabled(name in trained and torch.is_grad_enabled()):
            records = stream.codec.encode(items, **noisy)
            found[name] = _drawn_items(stream, places, drawn, segments, items=items, records=records)
    return found


def _places(
    stream: str, drawn: Sequence[Drawn], segments: Mapping[str, Sequence[SegmentConfig]], seed: int
) -> list[_Place]:
    """Where a stream's items stand."""
    return [
        _Place(number, index, (seed, stream, one.epoch, one.key, index), (seed, one.epoch, one.key))
        for number, one in enumerate(drawn)
        for index, segment in enumerate(segments[one.source])
        if segment.stream == stream
    ]


def _drawn_items(
    stream: Stream,
    places: Sequence[_Place],
    drawn: Sequence[Drawn],
    segments: Mapping[str, Sequence[SegmentConfig]],
    *,
    items: Sequence[Item],
    records: Sequence[Encoded],
) -> EncodedItems:
    """Items at their places, and a sample of each posterior."""
    latents = [_draw(record, place) for record, place in zip(records, places, strict=True)]
    configs = [segments[drawn[place.sample].source][place.segment] for place in places]
    return EncodedItems(stream=stream, places=places, configs=configs, items=items, records=records, latents=latents)


def join_sequences(
    encoded: Mapping[str, EncodedItems], *, flow: FlowConfig, detached: bool = False
) -> list[LatentSequence]:
    """One sequence per sample, in the order of the samples. Latents keep the gradient that they have unless `detached`;
    pinned values, which are history, have none."""
    segments: dict[tuple[int, int], Segment] = {}
    for name, some in encoded.items():
        records = [record.on_cpu() for record in some.records]
        pinned = _ragged(some, records, flow)
        each = zip(some.places, records, some.latents, some.configs, pinned, strict=True)
        for place, record, latents, config, (cuts, values) in each:
            fields = draw_noise(flow, name, record, *place.names) if config.role == "generated" else {}
            segments[place.sample, place.segment] = Segment(
                stream=name,
                z_LC=(latents.z_LC.detach() if detached else latents.z_LC).cpu(),
                block_lengths=record.block_lengths,
                positions_LA=record.positions_LA,
                generated=config.role == "generated",
                same_group=config.same_group,
                units=int(record.units_L.sum()),
                weight_L=torch.where(record.units_L > 0, 1.0, flow.padding),
                pinned_K=cuts,
                pinned_LC=values,
                **fields,  # type: ignore[arg-type]
            )
    sequences: dict[int, list[Segment]] = {}
    for sample, segment in sorted(segments):
        sequences.setdefault(sample, []).append(segments[sample, segment])
    origins = {place.sample: place.origin for some in encoded.values() for place in some.places}
    return [_conditioned(sequence, flow, origins[sample]) for sample, sequence in sequences.items()]


def _conditioned(sequence: Sequence[Segment], flow: FlowConfig, names: tuple[Name, ...]) -> LatentSequence:
    """The sequence, or one item of it as it is where no condition is given: alone, counted from its own start."""
    lone = draw_lone(flow, [segment.generated for segment in sequence], *names)
    return tuple(sequence) if lone is None else (replace(sequence[lone], same_group=False),)


def _draw(record: Encoded, place: _Place) -> Latents:
    """The sample of a posterior, in float32."""
    noise_LC = normal(record.mean_LC.shape, *place.names, "posterior").to(record.mean_LC.device)
    logvar_LC = None if record.logvar_LC is None else record.logvar_LC.float()
    posterior = replace(record, mean_LC=record.mean_LC.float(), logvar_LC=logvar_LC)
    return posterior.sample(noise_LC, seed=torch_seed(*place.names, "losses"))


def at_time(sequence: LatentSequence, t: float) -> LatentSequence:
    """The same sequence and noise with every generated block at noise level `t`."""
    return tuple(replace(one, t_K=(t,) * len(one.block_lengths)) if one.generated else one for one in sequence)


def _ragged(
    some: EncodedItems, records: Sequence[Encoded], flow: FlowConfig
) -> list[tuple[tuple[int, ...], Tensor | None]]:
    """For each item, how many latents each block has pinned and their values, as a prompt cut there would give them."""
    codec, items = some.stream.codec, some.items
    if not flow.ragged or not isinstance(codec, RaggedCodec):
        return [((), None)] * len(records)
    cuts = []
    for record, place, config in zip(records, some.places, some.configs, strict=True):
        drawn = draw_cuts(flow, record.block_lengths, *place.names)
        real = [int((units > 0).sum()) for units in record.units_L.split(list(record.block_lengths))]
        # A prompt does not end: at least one latent that counts is left to generate.
        cuts.append(
            tuple(
                max(0, min(cut, count - 1)) if config.role == "generated" else 0
                for cut, count in zip(drawn, real, strict=True)
            )
        )
    with torch.no_grad():
        values = codec.encode_cut(items, cuts)
    return [(cut, value.detach().float().cpu()) for cut, value in zip(cuts, values, strict=True)]
