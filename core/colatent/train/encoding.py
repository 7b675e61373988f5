"""`colatent encode`: every sample of every source through the frozen codecs once, into a latent cache.

The last bits of an item's latents depend on the items beside it in a batch. So what a step of stage prior would encode
together is encoded together here: sources in their own order of training, a step's samples at a time, cut into the
passes of that step. What is encoded follows from the plan alone; so an encoding that was stopped goes on with the same
command, and processes that share a folder need not speak to each other.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colatent.config.schema import RunConfig
from colatent.data.cache import CacheIndex, CachePlan
from colatent.data.cache_reading import Watched, index_of
from colatent.data.cache_shards import CachedSample
from colatent.data.cache_writing import CacheWriter, begin, finish
from colatent.data.facts import check_facts
from colatent.data.mixture import Drawn, Mixture
from colatent.data.streams import cut_items
from colatent.errors import UserError
from colatent.plugins.pluginset import PluginSet, load_plugins
from colatent.train.cached import epochs_of, plan_of, varied_sources
from colatent.train.codecs import build_codecs, check_items
from colatent.train.device import own_device
from colatent.train.interrupts import Interrupts
from colatent.train.prepare import Run, prepare
from colatent.train.refusals import check_codecs_trained
from colatent.train.spread import in_passes

Progress = Callable[[int, int], None]
"""Hears how many of its draws a process has encoded or found encoded, and how many there are."""
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which of the processes that encode together this one is."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """Samples that the training would encode in one step: draws start <= number < stop of a source."""

    source: str
    start: int
    stop: int


def encode(
    config: RunConfig,
    out: Path,
    *,
    draws: int | None = None,
    share: Share | None = None,
    shard_bytes: int = 256 * MIB,
    plugins: PluginSet | None = None,
    progress: Progress | None = None,
) -> CacheIndex | None:
    """Encode this process's share, or what is left of it, into the folder `out`; gives the index when all is done.

    draws        of each sample of sources that draw anew in every epoch; refused where there are such and it is None
    shard_bytes  a shard is closed when it has as many
    """
    share = share or Share()
    if share.world > 1 and "LOCAL_RANK" in os.environ:  # a launcher's: each process of a machine has its own device
        own_device(config.device)
    run = _ready(config, plugins or load_plugins())
    plan = plan_of(run, _draws(run, draws))
    index = begin(out, plan)
    if index is not None:
        return index
    writer = CacheWriter(out, plan, shard_bytes=shard_bytes)
    with Interrupts() as interrupts:
        for done, total in _encode_steps(run, plan, writer, list(steps_of(plan, share))):
            if progress is not None:
                progress(done, total)
            if done < total and interrupts.due():
                writer.flush()
                interrupts.stop(out)
        writer.flush()
    return finish(out, plan)


def _encode_steps(run: Run, plan: CachePlan, writer: CacheWriter, steps: Sequence[Step]) -> Iterator[tuple[int, int]]:
    """Encode the steps that are in no whole shard; gives after each how far it has come."""
    encoder, done, total = _Encoder(run, plan), 0, sum(step.stop - step.start for step in steps)
    for step in steps:
        if not writer.holds(step.source, step.start, step.stop):
            writer.add(step.source, step.start, encoder.encode(step))
        done += step.stop - step.start
        yield done, total


def steps_of(plan: CachePlan, share: Share) -> Iterator[Step]:
    """The steps that a process encodes: of every source a stretch of its own."""
    for name, source in plan.sources.items():
        count = math.ceil(source.total / source.batch)
        for number in range(count * share.rank // share.world, count * (share.rank + 1) // share.world):
            start = number * source.batch
            yield Step(source=name, start=start, stop=min(start + source.batch, source.total))


class _Encoder:
    """The codecs at work."""

    def __init__(self, run: Run, plan: CachePlan) -> None:
        self._run, self._plan, self._streams = run, plan, run.streams
        self._datasets = {name: Watched(dataset) for name, (dataset, _) in run.sources.training.items()}
        self._mixtures = {
            name: Mixture({name: (dataset, 1.0)}, seed=plan.seed) for name, dataset in self._datasets.items()
        }

    def encode(self, step: Step) -> list[CachedSample]:
        """The records of a step's samples. The last step of a source is filled up as it is in training, where the next
        epoch follows."""
        source, mixture = self._plan.sources[step.source], self._mixtures[step.source]
        mixture.load_state({"drawn": {step.source: step.start}})
        drawn, count, found = mixture.take(source.batch), step.stop - step.start, list[CachedSample]()
        if self._datasets[step.source].varied and not source.varied:
            what = "some of its samples are drawn anew in every epoch, and those looked at first are not"
            do = "use the generator for every sample or for none, or train without a cache"
            raise UserError(what, where=f"data.sources.{step.source}", do=do)
        for some in in_passes(drawn, self._plan.accumulate):
            found += self._encode_pass(some) if len(found) < count else ()
        return found[:count]

    @torch.no_grad()
    def _encode_pass(self, drawn: Sequence[Drawn]) -> list[CachedSample]:
        records, source = {}, drawn[0].source
        for name in self._plan.sources[source].streams:
            stream = self._streams[name]
            # A stream may stand in a sequence more than once, and training encodes its item as often.
            times = sum(segment.stream == name for segment in self._run.sources.segments[source])
            items = cut_items(stream, [one for one in drawn for _ in range(times)])
            with self._precision():
                records[name] = [record.on_cpu() for record in stream.codec.encode(items)[::times]]
        return [
            CachedSample(
                index=index_of(one), draw=one.epoch, records={name: some[number] for name, some in records.items()}
            )
            for number, one in enumerate(drawn)
        ]

    def _precision(self) -> Any:
        if self._plan.precision == "bf16":
            return torch.autocast(self._run.device.type, dtype=torch.bfloat16)
        return nullcontext()


def _ready(config: RunConfig, plugins: PluginSet) -> Run:
    """The run with its trained codecs, frozen."""
    if "prior" not in config.stages:
        raise UserError("has no stage prior, which is what reads a cache", where="stages", do="add stages.prior")
    data = config.data.model_copy(update={"cache": None})
    run = prepare(config.model_copy(update={"data": data}), plugins)
    build_codecs(run)
    check_codecs_trained(run, "prior")
    check_facts(run.sources, run.codecs)
    check_items(run)
    return run


def _draws(run: Run, draws: int | None) -> dict[str, int]:
    """How many draws there are to be of the sources that are drawn anew in every epoch."""
    varied = varied_sources(run)
    if varied and draws is None:
        epochs = epochs_of(run, varied[0])
        what = f"its samples are drawn anew in every epoch (epochs in stage prior: {epochs})"
        do = f"pass --draws {epochs} to encode each of them, or fewer, by turns"
        raise UserError(what, where=f"data.sources.{varied[0]}", do=do)
    if draws is not None and not varied:
        warnings.warn("--draws has no effect: every sample is the same in every epoch", stacklevel=3)
    return dict.fromkeys(varied, draws or 1)
