"""What a run and its latent cache have to do with each other: by which plan it would be encoded, whether the cache is
of that plan, and whether codec and data still give what lies there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from colatent.config.checks import validate
from colatent.data.cache import AGAIN, CachedSource, CachedStream, CachePlan, check_fits
from colatent.data.cache_reading import LatentCache, Unread, Watched
from colatent.data.mixture import Drawn, sample_of
from colatent.data.streams import cut_items
from colatent.errors import UserError
from colatent.latents.draws import generator
from colatent.train.budgets import mean_latents
from colatent.train.prepare import Run

PROBES = 8
"""Samples of a source that are drawn to see whether they depend on the epoch."""
TOLERANCE = 0.05
"""How far a cached mean may be from what the codec gives now, of latents at unit scale: far more than precisions and
devices differ by, far less than another item differs by."""


def plan_of(run: Run, draws: Mapping[str, int]) -> CachePlan:
    """The plan by which the run's sources would be encoded, so many draws of each sample of those named."""
    config, stage = run.config, run.config.stages["prior"]
    streams = {
        name: CachedStream(field=run.sources.fields[name], **_known(facts.to_json()))
        for name, facts in run.facts.items()
    }
    sources = {}
    for name, source in config.data.sources.items():
        settings = validate(run.plugins.dataset_config(source.dataset), source.config, where=f"data.sources.{name}")
        whole = run.sources.sizes.get(name, stage.batch) if stage.draw == "step" else stage.batch
        sources[name] = CachedSource(
            dataset=source.dataset,
            config=settings.model_dump(mode="json"),
            streams=tuple(sorted(run.sources.streams_of(name))),
            samples=len(run.sources.training[name][0]),
            varied=name in draws,
            draws=draws.get(name, 1),
            batch=whole,
        )
    return CachePlan(
        seed=config.seed,
        length=config.data.length,
        accumulate=stage.accumulate,
        precision=stage.precision,
        fingerprint=run.plugins.fingerprint,
        streams=streams,
        sources=sources,
    )


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in CachedStream.model_fields if key != "field"}


def open_cache(run: Run) -> None:
    """Give the run the cache that its config names; refuse one that is not of its codecs and data."""
    if run.config.data.cache is None:
        return
    for name, facts in run.facts.items():
        if not facts.trained:
            what = f"is of codecs that are trained, and that of stream {name!r} is not"
            raise UserError(what, where="data.cache", do=f"set streams.{name}.weights, or train without a cache first")
    datasets = {name: dataset for name, (dataset, _) in run.sources.training.items()}
    cache = LatentCache.open(Path(run.config.data.cache), datasets)
    check_fits(cache.plan, plan_of(run, {}), folder=cache.path)
    if cache.plan.fingerprint != run.plugins.fingerprint:
        what = f"{cache.path} was encoded with other plugins, or other versions of them, than are in force"
        warnings.warn(what, stacklevel=2)
    for name in datasets:
        _check_repeats(run, cache, name)
        for index in {0, len(datasets[name]) - 1}:
            _check_latents(run, cache, Drawn(source=name, key=f"{name}/{index}", epoch=0, sample={}))
    run.cache = cache


def read_no_samples(run: Run) -> None:
    """Let the run's mixture draw samples without reading them: all that training takes of them is cached."""
    training = {name: (Unread(len(dataset)), weight) for name, (dataset, weight) in run.sources.training.items()}
    run.sources = replace(run.sources, training=training)


def varied_sources(run: Run) -> list[str]:
    """The sources whose samples are drawn anew in every epoch."""
    return [name for name, (dataset, _) in run.sources.training.items() if _varies(Watched(dataset), name)]


def _varies(dataset: Watched, name: str) -> bool:
    for index in range(0, len(dataset), max(1, len(dataset) // PROBES)):
        sample_of(dataset, name, index, generator("probe", name, index))
    return dataset.varied


def epochs_of(run: Run, source: str) -> int:
    """How often stage prior reads a source, about; the last time perhaps in part."""
    stage, weights = run.config.stages["prior"], {name: one.weight for name, one in run.config.data.sources.items()}
    batch: float = run.sources.sizes.get(source, stage.batch) if stage.draw == "step" else stage.batch
    if stage.budget is not None:
        batch = stage.budget / mean_latents(run)
    samples = stage.steps * batch * weights[source] / sum(weights.values())
    return math.ceil(samples / len(run.sources.training[source][0]))


def _check_repeats(run: Run, cache: LatentCache, source: str) -> None:
    """Tell of a source that a run goes through more often than its samples were drawn."""
    known, epochs = cache.plan.sources[source], epochs_of(run, source)
    if known.varied and epochs > known.draws:
        what = f"source {source!r} has draws of each sample in {cache.path}: {known.draws}"
        warnings.warn(f"{what}, and epochs in stage prior: {epochs}, so draws repeat", stacklevel=3)


@torch.no_grad()
def _check_latents(run: Run, cache: LatentCache, one: Drawn) -> None:
    """Refuse a cache of which a sample is no longer what codec and data give: files may change under one name."""
    again = cache.drawn_again([one])
    for name in sorted(run.sources.streams_of(one.source)):
        (kept,) = cache.records(name, [one])
        stream = run.streams[name]
        fresh = stream.codec.encode(cut_items(stream, again))[0].on_cpu()
        same = fresh.mean_LC.shape == kept.mean_LC.shape and fresh.block_lengths == kept.block_lengths
        if not same or not torch.allclose(fresh.mean_LC, kept.mean_LC, rtol=TOLERANCE, atol=TOLERANCE):
            what = f"sample {one.key} no longer gives the latents of stream {name!r} that are there"
            do = f"{AGAIN}: the data or the codec's package have changed"
            raise UserError(what, where=f"data.cache ({cache.path})", do=do)
