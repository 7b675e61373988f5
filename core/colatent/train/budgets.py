"""Stages whose steps are cut by a budget of latents: how long the sequence of a sample is, and whether one fits.

The length is that of the sequence which the prior would be given, whole blocks of every segment. It comes from the
latent cache where there is one, from a codec that can say it, and else from encoding the item once more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from colatent.config.stages import StageConfig
from colatent.data.budget import Budget, Budgeted, Measure
from colatent.data.mixture import Drawn, Mixture, first_samples
from colatent.data.streams import Stream, cut_items
from colatent.errors import UserError
from colatent.plugins.contract import MeasuredCodec, RaggedCodec
from colatent.train.prepare import Run

PROBES = 8
"""Samples of a source whose mean length stands for all."""


def budgeted(run: Run, mixture: Mixture, *, stage: str) -> Budgeted:
    """The mixture in steps of the stage's budget. It must give the samples of all processes."""
    budget = _budget(run, stage)
    return Budgeted(mixture, budget, measure=measure_of(run), rank=run.world.rank, world=run.world.size)


def _budget(run: Run, stage: str) -> Budget:
    config = run.config.stages[stage]  # type: ignore[index]
    assert config.budget is not None
    return Budget(latents=config.budget, shares=shares(config, run.world.size), where=f"stages.{stage}.budget")


def shares(config: StageConfig, world: int) -> int:
    """How many samples each step of a stage must have: one for each process, and one in every pass where all must come
    to each pass together."""
    return world * (config.accumulate if config.parallel == "fsdp" and world > 1 else 1)


def measure_of(run: Run) -> Measure:
    """What tells the latents of samples, all segments of their sequences together; 1 of an empty one, which also
    takes its place."""
    segments = {source: Counter(segment.stream for segment in some) for source, some in run.sources.segments.items()}

    def measure(drawn: Sequence[Drawn]) -> list[int]:
        totals = [0] * len(drawn)
        for name, stream in run.streams.items():
            places = [place for place, one in enumerate(drawn) if segments[one.source][name]]
            some = [drawn[place] for place in places]
            for place, length in zip(places, _lengths(run, stream, some), strict=True):
                totals[place] += length * segments[drawn[place].source][name]
        return [max(1, total) for total in totals]

    return measure


@torch.no_grad()
def _lengths(run: Run, stream: Stream, drawn: Sequence[Drawn]) -> list[int]:
    """Latents of the samples' items of one stream."""
    if run.cache is not None:
        return [len(record.mean_LC) for record in run.cache.records(stream.name, drawn)]
    items = cut_items(stream, drawn)
    if isinstance(stream.codec, MeasuredCodec):
        return stream.codec.lengths(items)
    training = stream.codec.training  # type: ignore[attr-defined]
    stream.codec.eval()  # type: ignore[attr-defined]  # what is only measured must not move running statistics
    try:
        return [len(record.mean_LC) for record in stream.codec.encode(items)]
    finally:
        stream.codec.train(training)  # type: ignore[attr-defined]


def mean_latents(run: Run) -> float:
    """Latents of a sample on average over the sources, as the first ones of each have them."""
    measure, total, weights = measure_of(run), 0.0, 0.0
    for name, (dataset, weight) in run.sources.training.items():
        lengths = measure(first_samples(dataset, name, count=PROBES, seed=run.config.seed))
        total, weights = total + weight * sum(lengths) / len(lengths), weights + weight
    return total / weights


def check_budgets(run: Run) -> None:
    """Refuse a budget that a sequence of items cut to the training length would exceed. What is not cut is only known
    when its turn comes."""
    for name, stage in run.config.stages.items():
        if stage.budget is None:
            continue
        budget = _budget(run, name)
        for source, segments in run.sources.segments.items():
            most = sum(_most(run.streams[segment.stream]) for segment in segments)
            if most > budget.largest:
                share = f", shared by {budget.shares}" if budget.shares > 1 else ""
                what = f"is {budget.latents}{share}: a sequence of source {source!r} may have {most} latents"
                raise UserError(what, where=budget.where, do="raise it, or lower data.length")


def _most(stream: Stream) -> int:
    """Latents of an item of a stream that is cut to whole blocks of its length; 1 of one that is not cut."""
    if not isinstance(stream.codec, RaggedCodec):
        return 1
    block = stream.codec.latent_spec().block or 1
    return math.ceil(stream.length / block) * block
