"""The datasets of a run: both splits opened, and each source's order of streams settled and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colatent.config.checks import validate
from colatent.config.schema import RunConfig, SegmentConfig
from colatent.data.dataset import Dataset, FieldedDataset, Opener, StoredDataset
from colatent.data.mixture import Drawn, Mixture, first_samples
from colatent.data.prefetch import Prefetching
from colatent.errors import UserError
from colatent.plugins import CodecInfo
from colatent.plugins.items import StoredCodec
from colatent.plugins.pluginset import PluginSet


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The datasets of a run: for training, held out, their orders of streams, the field of a sample that each stream
    reads, and batches of their own."""

    training: Mapping[str, tuple[Dataset, float]]
    heldout: Mapping[str, Dataset]
    segments: Mapping[str, tuple[SegmentConfig, ...]]
    fields: Mapping[str, str]
    sizes: Mapping[str, int] = field(default_factory=dict)

    def mixture(
        self,
        *,
        seed: int,
        stream: str | None = None,
        whole: bool = False,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> Mixture:
        """The training samples; with `stream`, of the sources that have it; `whole`: a step's are all of one source.

        rank, world  whose share of each step it gives, and among how many
        workers      processes that read ahead
        """
        names = [name for name in self.training if stream is None or stream in self.streams_of(name)]
        chosen = {name: self.training[name] for name in names}
        share: dict[str, Any] = {"seed": seed, "whole": whole, "sizes": self.sizes, "rank": rank, "world": world}
        return Prefetching(chosen, **share, workers=workers) if workers else Mixture(chosen, **share)

    def streams_of(self, source: str) -> set[str]:
        """The streams in a source's sequences."""
        return {segment.stream for segment in self.segments[source]}

    def open_with(self, stream: str, opener: Opener | None) -> None:
        """Files of the field that a stream reads are opened in this way from now on; None: its codec opens none."""
        for source, (dataset, _) in self.training.items():
            for each in (dataset, self.heldout[source]):
                if opener is not None and stream in self.streams_of(source) and isinstance(each, StoredDataset):
                    each.open_with(self.fields[stream], opener)

    def held(self, count: int, *, seed: int) -> dict[str, list[Drawn]]:
        """The first held-out samples of each source."""
        return {name: first_samples(dataset, name, count=count, seed=seed) for name, dataset in self.heldout.items()}


def origin_of(config: RunConfig, source: str) -> str:
    """How errors call a source: its key path, and data.path where it reads from there."""
    where, path = f"data.sources.{source}", config.data.path
    return f"{where} ({path})" if path and path in config.data.sources[source].config.values() else where


def opener_of(codec: str, settings: Mapping[str, Any], *, plugins: PluginSet) -> Opener | None:
    """How a codec of these settings opens files; None where it opens none."""
    cls = plugins.codec_class(codec)
    if not isinstance(cls, StoredCodec):
        return None
    return Opener(codec=cls, config=validate(plugins.codec_config(codec), settings))


def open_sources(config: RunConfig, plugins: PluginSet, infos: Mapping[str, CodecInfo]) -> Sources:
    """Open both splits of every source."""
    training, heldout, segments, fields = {}, {}, {}, fields_read(config, infos)
    for name, source in config.data.sources.items():
        where = f"data.sources.{name}"
        declared = plugins.dataset(source.dataset, where=f"{where}.dataset")
        settings = validate(plugins.dataset_config(source.dataset), source.config, where=f"{where}.config")
        cls = plugins.dataset_class(source.dataset)
        training[name] = (cls(settings, split="train"), source.weight)
        heldout[name] = cls(settings, split="heldout")
        if not len(training[name][0]) or not len(heldout[name]):
            raise UserError("has no samples to train on or none held out", where=where, do="give it more data")
        dataset = training[name][0]
        for each in (dataset, heldout[name]):
            if isinstance(each, StoredDataset):
                each.name_fields(_suffixes(fields, infos, plugins))
        present = dataset.fields() if isinstance(dataset, FieldedDataset) else declared.fields
        segments[name] = _segments(source.segments, fields, present, where=where)
    sizes = {name: source.batch for name, source in config.data.sources.items() if source.batch is not None}
    return Sources(training=training, heldout=heldout, segments=segments, fields=fields, sizes=sizes)


def fields_read(config: RunConfig, infos: Mapping[str, CodecInfo]) -> dict[str, str]:
    """The field of a sample that each stream reads: what the config says of it, else the first of its codec's."""
    said = {name: stream.field for name, stream in config.streams.items()}
    return {name: said.get(name) or info.fields[0] for name, info in infos.items()}


def _suffixes(
    fields: Mapping[str, str], infos: Mapping[str, CodecInfo], plugins: PluginSet
) -> dict[str, Sequence[str]]:
    """How the names of the files end that hold these fields, by field; of fields whose codecs open files."""
    classes = {name: plugins.codec_class(info.name, where=f"streams.{name}.codec") for name, info in infos.items()}
    return {fields[name]: cls.suffixes() for name, cls in classes.items() if isinstance(cls, StoredCodec)}


def _segments(
    given: Sequence[SegmentConfig] | None, fields: Mapping[str, str], present: Sequence[str], *, where: str
) -> tuple[SegmentConfig, ...]:
    """The order of streams, settled: `fields` of the streams, and those `present` in the samples."""
    if given is None:
        found = tuple(SegmentConfig(stream=name) for name, field in fields.items() if field in present)
        if not found:
            raise UserError(f"no stream reads any of its fields {', '.join(present)}", where=where, do="add a stream")
        return found
    if given and given[0].same_group:
        what = "is set on the first segment, which has none before it"
        raise UserError(what, where=f"{where}.segments.0.same_group", do="leave it out")
    for index, segment in enumerate(given):
        if segment.stream not in fields:
            known = ", ".join(fields)
            raise UserError(
                f"no stream {segment.stream!r}", where=f"{where}.segments.{index}", do=f"use one of {known}"
            )
        if fields[segment.stream] not in present:
            what = f"its dataset yields no {fields[segment.stream]!r} for stream {segment.stream!r}"
            known = ", ".join(present)
            do = f"set streams.{segment.stream}.field to one of {known}, or declare the field in its `fields`"
            raise UserError(what, where=f"{where}.segments.{index}", do=do)
    if all(segment.role == "given" for segment in given):
        raise UserError("every segment is given, nothing is generated", where=f"{where}.segments")
    return tuple(given)
