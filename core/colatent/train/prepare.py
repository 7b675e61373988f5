"""What a run is made of before its first step: datasets opened, orders of streams settled, codecs built.

Everything that a user can get wrong in a config is found here, before a run folder exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from colatent.checkpoint.codecs import CodecFacts, build_codec, codec_tensors, load_codec, read_facts
from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.resolve import resolve_model
from colatent.checkpoint.tensors import hash_tensors
from colatent.config.checks import check_unchanged, validate
from colatent.config.schema import RunConfig, SegmentConfig
from colatent.data.dataset import Dataset
from colatent.data.mixture import Drawn, Mixture, first_samples
from colatent.errors import UserError
from colatent.latents.draws import digest, generator
from colatent.plugins import CodecInfo
from colatent.plugins.contract import Codec, Item, RaggedCodec
from colatent.plugins.pluginset import PluginSet
from colatent.train.sequences import Stream, cut_items

SETUP_SAMPLES = 1000
"""Samples from which tokenizers and the like are made."""
LENGTH_DRAWS = 8
"""How often a sample is drawn to see how long it can be."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The datasets of a run: for training, held out, and their orders of streams."""

    training: Mapping[str, tuple[Dataset, float]]
    heldout: Mapping[str, Dataset]
    segments: Mapping[str, tuple[SegmentConfig, ...]]

    def mixture(self, *, seed: int) -> Mixture:
        """The training samples."""
        return Mixture(self.training, seed=seed)

    def streams_of(self, source: str) -> set[str]:
        """The streams in a source's sequences."""
        return {segment.stream for segment in self.segments[source]}

    def held(self, count: int, *, seed: int) -> dict[str, list[Drawn]]:
        """The first held-out samples of each source."""
        return {name: first_samples(dataset, name, count=count, seed=seed) for name, dataset in self.heldout.items()}


@dataclass(kw_only=True)
class Run:
    """A run under way: its settings, sources and codecs."""

    config: RunConfig
    plugins: PluginSet
    device: torch.device
    sources: Sources
    infos: Mapping[str, CodecInfo]
    codecs: dict[str, Codec] = field(default_factory=dict)
    facts: dict[str, CodecFacts] = field(default_factory=dict)

    @property
    def streams(self) -> dict[str, Stream]:
        """The streams with their codecs."""
        length = self.config.data.length
        return {
            name: Stream(name=name, field=self.infos[name].fields[0], length=length, codec=codec)
            for name, codec in self.codecs.items()
        }

    def items(self, drawn: Iterable[Drawn], stream: str) -> list[Item]:
        """The items of one stream among samples."""
        key = self.infos[stream].fields[0]
        return [one.sample[key] for one in drawn if stream in self.sources.streams_of(one.source)]

    def adopt(self, stream: str, codec: Codec, facts: CodecFacts) -> None:
        """Use this codec for a stream, on the run's device."""
        assert isinstance(codec, nn.Module)
        self.codecs[stream], self.facts[stream] = codec.to(self.device), facts


def prepare(config: RunConfig, plugins: PluginSet) -> Run:
    """Check names and settings and open the datasets; builds no network yet."""
    infos = {}
    for name, stream in config.streams.items():
        where = f"streams.{name}"
        infos[name] = plugins.codec(stream.codec, where=f"{where}.codec")
        validate(plugins.codec_config(stream.codec), stream.config, where=f"{where}.config")
    sources = open_sources(config, plugins, infos)
    _check_names(config, sources)
    return Run(config=config, plugins=plugins, device=pick_device(config.device), sources=sources, infos=infos)


def _check_names(config: RunConfig, sources: Sources) -> None:
    """Every stream is used by a source, and every setting by stream names one."""
    used = {stream for source in config.data.sources for stream in sources.streams_of(source)}
    for name in config.streams:
        if name not in used:
            do = "add it to the segments of a source or take it out"
            raise UserError("no source has this stream", where=f"streams.{name}", do=do)
    for where, names in (("flow.times", config.flow.times), ("flow.weights", config.flow.weights)):
        for name in names:
            if name not in config.streams:
                raise UserError(f"no stream {name!r}", where=where, do=f"use one of {', '.join(config.streams)}")


def pick_device(name: str) -> torch.device:
    """The device that a config names."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"{name!r} cannot be used here", where="device", do="use auto, cpu or cuda") from error
    return device


def open_sources(config: RunConfig, plugins: PluginSet, infos: Mapping[str, CodecInfo]) -> Sources:
    """Open both splits of every source."""
    training, heldout, segments = {}, {}, {}
    for name, source in config.data.sources.items():
        where = f"data.sources.{name}"
        declared = plugins.dataset(source.dataset, where=f"{where}.dataset")
        settings = validate(plugins.dataset_config(source.dataset), source.config, where=f"{where}.config")
        cls = plugins.dataset_class(source.dataset)
        training[name] = (cls(settings, split="train"), source.weight)
        heldout[name] = cls(settings, split="heldout")
        if not len(training[name][0]) or not len(heldout[name]):
            raise UserError("has no samples to train on or none held out", where=where, do="give it more data")
        segments[name] = _segments(source.segments, infos, declared.fields, where=where)
    return Sources(training=training, heldout=heldout, segments=segments)


def _segments(
    given: Sequence[SegmentConfig] | None, infos: Mapping[str, CodecInfo], fields: Sequence[str], *, where: str
) -> tuple[SegmentConfig, ...]:
    if given is None:
        found = tuple(SegmentConfig(stream=name) for name, info in infos.items() if info.fields[0] in fields)
        if not found:
            raise UserError(f"no stream reads any of its fields {', '.join(fields)}", where=where, do="add a stream")
        return found
    for index, segment in enumerate(given):
        if segment.stream not in infos:
            known = ", ".join(infos)
            raise UserError(
                f"no stream {segment.stream!r}", where=f"{where}.segments.{index}", do=f"use one of {known}"
            )
        if infos[segment.stream].fields[0] not in fields:
            what = f"its dataset yields no {infos[segment.stream].fields[0]!r} for stream {segment.stream!r}"
            raise UserError(what, where=f"{where}.segments.{index}")
    if all(segment.role == "given" for segment in given):
        raise UserError("every segment is given, nothing is generated", where=f"{where}.segments")
    return tuple(given)


def build_codecs(run: Run) -> None:
    """Give every stream its codec: that of `weights` or `init` where named, else one with fresh weights."""
    config = run.config
    for name, stream in config.streams.items():
        origin = stream.weights or config.init
        if origin is not None:
            checkpoint = resolve_model(origin)
            if stream.weights or checkpoint.has(f"codec.{name}"):
                _adopt_trained(run, name, origin)
                continue
        run.adopt(name, *_fresh_codec(run, name))


def _adopt_trained(run: Run, name: str, origin: str) -> None:
    checkpoint, where = resolve_model(origin), f"streams.{name}.weights"
    if not checkpoint.has(f"codec.{name}"):
        raise UserError(f"{checkpoint.path} has no codec for this stream", where=where)
    adopt_stored(run, name, checkpoint)


def adopt_stored(run: Run, name: str, checkpoint: Checkpoint) -> None:
    """Use the codec in a checkpoint for a stream, if it is the one that the config describes."""
    facts, stream, where = read_facts(checkpoint, name), run.config.streams[name], f"streams.{name}"
    if stream.codec != facts.codec:
        what = f"{checkpoint.path} holds codec {facts.codec!r}, the config names {stream.codec!r}"
        raise UserError(what, where=f"{where}.codec", do=f"name {facts.codec!r}, or start a run of its own")
    if stream.config:  # left out, the settings are those of the weights
        model = run.plugins.codec_config(stream.codec)
        before, after = (validate(model, some, where=f"{where}.config") for some in (facts.config, stream.config))
        do = f"put it back, or train another codec in a run of its own (this one is in {checkpoint.path})"
        check_unchanged(before, after, where=f"{where}.config", do=do)
    run.adopt(name, *load_codec(checkpoint, name, plugins=run.plugins))


def check_lengths(run: Run) -> None:
    """Where blocks have a fixed length, items and data must be long enough to fill one."""
    for name, stream in run.streams.items():
        block = stream.codec.latent_spec().block
        if block is None:
            continue
        if isinstance(stream.codec, RaggedCodec) and stream.length < block:
            what = f"is {stream.length}, less than a block of stream {name!r} ({block} latents)"
            raise UserError(what, where="data.length", do=f"give at least {block}")
        for source in run.sources.training:
            if name in run.sources.streams_of(source):
                _check_corpus(run, stream, source, block=block)


@torch.no_grad()
def _check_corpus(run: Run, stream: Stream, source: str, *, block: int) -> None:
    """A source must hold at least one block of a stream. Where a sample begins may be drawn, so each is drawn often."""
    dataset, found = run.sources.training[source][0], 0
    for index in range(len(dataset)):
        draws = [generator(run.config.seed, "length", source, index, number) for number in range(LENGTH_DRAWS)]
        items = cut_items(stream, [dataset.sample(index, rng)[stream.field] for rng in draws])
        found += max(int((record.units_L > 0).sum()) for record in stream.codec.encode(items))
        if found >= block:
            return
    what = f"holds {found} latents of stream {stream.name!r}, less than one block ({block})"
    raise UserError(what, where=f"data.sources.{source}", do="give it more data or make blocks shorter")


def _fresh_codec(run: Run, name: str) -> tuple[Codec, CodecFacts]:
    stream, where = run.config.streams[name], f"streams.{name}"
    cls, assets = run.plugins.codec_class(stream.codec), None
    settings = validate(run.plugins.codec_config(stream.codec), stream.config, where=f"{where}.config")
    if hasattr(cls, "prepare"):
        samples = run.sources.mixture(seed=run.config.seed).take(SETUP_SAMPLES)
        assets = cls.prepare(settings, run.items(samples, name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(digest(run.config.seed, "codec", name) % 2**63)
        codec = build_codec(stream.codec, stream.config, plugins=run.plugins, where=where, assets=assets)
    return codec, current_facts(run, name, codec, trained=False)


def current_facts(run: Run, name: str, codec: Codec, **known: object) -> CodecFacts:
    """Facts of a codec as its weights are now."""
    stream = run.config.streams[name]
    return CodecFacts(
        codec=stream.codec,
        config=stream.config,
        channels=codec.latent_spec().channels,
        hash=hash_tensors(codec_tensors(codec)),
        **known,  # type: ignore[arg-type]
    )
