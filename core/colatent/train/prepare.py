"""What a run is made of before its first step: its settings checked, its datasets open, and room for its codecs.

Everything that a user can get wrong in a config is found here and in `data.sources`, before a run folder exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from colatent.checkpoint.codecs import CodecFacts, check_options
from colatent.config.checks import validate
from colatent.config.schema import RunConfig
from colatent.data.cache_reading import LatentCache
from colatent.data.mixture import Drawn
from colatent.data.sources import Sources, open_sources, opener_of, origin_of
from colatent.data.streams import Stream, cut_items
from colatent.errors import UserError
from colatent.evaluate.tasks import build_tasks
from colatent.plugins import CodecInfo
from colatent.plugins.contract import Codec
from colatent.plugins.latents import Item
from colatent.plugins.pluginset import PluginSet
from colatent.train.device import pick_device
from colatent.train.world import World


@dataclass(kw_only=True)
class Run:
    """A run under way: its settings, sources and codecs, the cache that its latents come from, if they do, and who
    trains it."""

    config: RunConfig
    plugins: PluginSet
    device: torch.device
    sources: Sources
    infos: Mapping[str, CodecInfo]
    codecs: dict[str, Codec] = field(default_factory=dict)
    facts: dict[str, CodecFacts] = field(default_factory=dict)
    cache: LatentCache | None = None
    world: World = field(default_factory=World)

    @property
    def streams(self) -> dict[str, Stream]:
        """The streams with their codecs."""
        length = self.config.data.length
        origins = {name: origin_of(self.config, name) for name in self.config.data.sources}
        return {
            name: Stream(name=name, field=self.sources.fields[name], length=length, codec=codec, origins=origins)
            for name, codec in self.codecs.items()
        }

    def having(self, drawn: Iterable[Drawn], stream: str) -> list[Drawn]:
        """The samples that have an item of this stream."""
        return [one for one in drawn if stream in self.sources.streams_of(one.source)]

    def items(self, drawn: Iterable[Drawn], stream: str) -> list[Item]:
        """The items of one stream among samples, no longer than its training length where its codec can cut."""
        return cut_items(self.streams[stream], self.having(drawn, stream))

    def adopt(self, stream: str, codec: Codec, facts: CodecFacts) -> None:
        """Use this codec for a stream, on the run's device, and let it open the stream's files."""
        assert isinstance(codec, nn.Module)
        self.codecs[stream], self.facts[stream] = codec.to(self.device).eval(), facts
        self.sources.open_with(stream, opener_of(facts.codec, facts.config, plugins=self.plugins))


def prepare(config: RunConfig, plugins: PluginSet, *, world: World | None = None) -> Run:
    """Check names and settings and open the datasets; builds no network yet."""
    infos = {}
    for name, stream in config.streams.items():
        where = f"streams.{name}"
        infos[name] = plugins.codec(stream.codec, where=f"{where}.codec")
        validate(plugins.codec_config(stream.codec), stream.config, where=f"{where}.config")
    sources = open_sources(config, plugins, infos)
    _check_names(config, sources)
    for name, options in config.sample.options.items():
        codec = plugins.codec_class(infos[name].name, where=f"streams.{name}.codec")
        check_options(codec, options, stream=name, where=f"sample.options.{name}")
    build_tasks(config.tasks, plugins)  # what judges lack must not be found after the training
    return Run(
        config=config,
        plugins=plugins,
        device=pick_device(config.device),
        sources=sources,
        infos=infos,
        world=world or World(),
    )


def _check_names(config: RunConfig, sources: Sources) -> None:
    """Every stream is used by a source, and every setting by stream names one."""
    used = {stream for source in config.data.sources for stream in sources.streams_of(source)}
    for name in config.streams:
        if hasattr(nn.ModuleDict(), name):  # networks are kept in one by the stream's name
            raise UserError("torch uses this name within modules", where=f"streams.{name}", do="choose another name")
        if name not in used:
            do = "give it a field that a source has, add it to the segments of a source, or take it out"
            what = f"no source has this stream, which reads field {sources.fields[name]!r}"
            raise UserError(what, where=f"streams.{name}", do=do)
    by_stream: dict[str, Mapping[str, Any]] = {"flow.times": config.flow.times, "flow.weights": config.flow.weights}
    by_stream |= {"sample.options": config.sample.options, "sample.streams": config.sample.streams}
    for where, names in by_stream.items():
        for name in names:
            if name not in config.streams:
                raise UserError(f"no stream {name!r}", where=where, do=f"use one of {', '.join(config.streams)}")
