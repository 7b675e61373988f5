"""The codecs of a run: that of another run, that of its own last checkpoint, or one with fresh weights; and whether the
data are what they take, and long enough for them.
"""

from __future__ import annotations

import torch

from colatent.checkpoint.codecs import CodecFacts, build_codec, facts_now, load_codec, read_facts
from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.resolve import resolve_model
from colatent.config.checks import check_unchanged, validate
from colatent.data.mixture import first_samples, sample_of
from colatent.data.sources import opener_of
from colatent.data.streams import Stream, cut_items, refused
from colatent.errors import UserError
from colatent.latents.draws import digest, generator
from colatent.plugins.blame import blamed
from colatent.plugins.contract import Codec, RaggedCodec
from colatent.train.prepare import Run

SETUP_SAMPLES = 1000
"""Samples from which tokenizers and the like are made."""
LENGTH_DRAWS = 8
"""How often a sample is drawn to see how long it can be."""


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


def _fresh_codec(run: Run, name: str) -> tuple[Codec, CodecFacts]:
    stream, where = run.config.streams[name], f"streams.{name}"
    cls, assets = run.plugins.codec_class(stream.codec), None
    settings = validate(run.plugins.codec_config(stream.codec), stream.config, where=f"{where}.config")
    if hasattr(cls, "prepare"):
        run.sources.open_with(name, opener_of(stream.codec, stream.config, plugins=run.plugins))
        samples = run.sources.mixture(seed=run.config.seed, stream=name).take(SETUP_SAMPLES)
        assets = cls.prepare(settings, [one.sample[run.sources.fields[name]] for one in samples])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(digest(run.config.seed, "codec", name) % 2**63)
        codec = build_codec(stream.codec, stream.config, plugins=run.plugins, where=where, assets=assets)
    return codec, facts_now(codec, name=stream.codec, settings=settings.model_dump(mode="json"), trained=False)


@torch.no_grad()
def check_items(run: Run) -> None:
    """A first item of each source must be one that the codec of its stream takes: settings of a dataset that do not fit
    those of a codec show here, and not in a run folder that is then in the way."""
    for source, (training, _) in run.sources.training.items():
        for dataset in (training, run.sources.heldout[source]):
            drawn = first_samples(dataset, source, count=1, seed=run.config.seed)
            for stream in (run.streams[name] for name in sorted(run.sources.streams_of(source))):
                items = cut_items(stream, drawn)
                who = run.plugins.who("codec", run.facts[stream.name].codec)
                try:
                    with blamed(who, "encode", where=stream.name):
                        stream.codec.encode(items)
                except UserError as error:
                    raise refused(stream, drawn[0], error) from error


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
        drawn = [sample_of(dataset, source, index, rng) for rng in draws]
        found += max(int((record.units_L > 0).sum()) for record in stream.codec.encode(cut_items(stream, drawn)))
        if found >= block:
            return
    what = f"holds {found} latents of stream {stream.name!r}, less than one block ({block})"
    raise UserError(what, where=f"data.sources.{source}", do="give it more data or make blocks shorter")
