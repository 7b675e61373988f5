"""The speed of generation: `Model.generate_many`, on prompts of random token ids.

Axes: C channels.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

import numpy as np
import torch

from colatent.checkpoint.codecs import check_options
from colatent.evaluate.bench import Bench, Measured, fill_zeros
from colatent.evaluate.flops import count_flops, generation_flops
from colatent.generate.model import Model
from colatent.generate.prefix import split_own
from colatent.generate.prompts import Read, read_prompts
from colatent.generate.requests import Request, Result, Settings
from colatent.generate.running import block_lengths, open_stream
from colatent.plugins.latents import Latents


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is generated.

    batch       items, generated together
    prompt      token ids that each begins with; 0: from nothing
    new         data units (tokens, ...) of each
    vocabulary  ids are drawn from 1 to below this; 0 may be padding
    """

    batch: int
    prompt: int
    new: int
    steps: int
    guidance: float
    vocabulary: int

    def prompts(self) -> list[Sequence[int]]:
        """The same at every call."""
        rng = np.random.default_rng(0)
        return [rng.integers(1, self.vocabulary, size=self.prompt).tolist() for _ in range(self.batch)]

    def settings(self) -> Settings:
        """How the flow is solved, all of it: a config may ask for less guidance in its samples than is counted here."""
        return Settings(steps=self.steps, solver="euler", guidance=self.guidance)


def bench_generation(model: Model, questions: Questions, bench: Bench) -> Measured:
    """Measure generation: encoding the prompts, filling the caches, solving and decoding blocks, committing between."""
    prompts = questions.prompts()
    fill_zeros(model.prior)
    how = {"batch": questions.batch, **vars(questions.settings())}
    kept: list[list[Result]] = []

    def generate(new: int = questions.new) -> None:
        kept[:] = model.generate_many(prompts, max_new_tokens=new, **how)

    first = bench.times(lambda: generate(1))  # one unit comes with a whole block
    seconds, memory, peak = bench.run(generate)
    with model.computing():
        tokens, flops = _count(model, questions, [some[0] for some in kept])
    return Measured(
        seconds=seconds,
        tokens=[tokens] * bench.repeats,
        flops={name: bench.repeats * count for name, count in flops.items()},
        memory=memory,
        peak=peak,
        more={"first_block_seconds": statistics.median(first)},
    )


def _count(model: Model, questions: Questions, made: Sequence[Result]) -> tuple[float, Mapping[str, int]]:
    """Data units and FLOPs of one repeat."""
    read: list[Read] = []
    prompts = questions.prompts()
    encoding = count_flops(lambda: read.extend(read_prompts(model.codecs, prompts, target=None)))
    requests = [_request(model, one, questions) for one in read]
    target, own = requests[0].target, requests[0].own
    whole, count, real = (0, 0, 0) if own is None else split_own(own)
    codec, longest = model.codecs[target], max(len(one.latents_LC) for one in made)
    lengths = block_lengths(codec, requests[0])
    blocks = lengths[: sum(end <= longest for end in accumulate(lengths))]
    settings = questions.settings()
    prior = generation_flops(
        model.prior.config,
        model.prior.channels,
        target,
        batch=questions.batch,
        given=() if own is None else own.block_lengths[:count],
        blocks=blocks,
        evaluations=settings.steps,
        guided=settings.branch(requests[0]) is not None,
        window=model.window,
    )
    decoding = count_flops(lambda: _decode(model, requests, blocks=len(blocks)))
    per_latent, pinned = codec.latent_spec().units_per_latent, real - whole
    tokens = sum(min(float(questions.new), (len(one.latents_LC) - pinned) * per_latent) for one in made)
    return tokens, {"prior": prior, "codec": encoding + decoding}


def _request(model: Model, read: Read, questions: Questions) -> Request:
    """What the model makes of a prompt."""
    options: dict[str, Any] = check_options(
        model.codecs[read.target], model.sample.options.get(read.target, {}), stream=read.target, where=""
    )
    return Request(target=read.target, own=read.own, names=(0, read.name), max_units=questions.new, options=options)


def _decode(model: Model, requests: Sequence[Request], *, blocks: int) -> None:
    """Decode so many blocks of zeros for each request, as a run of generation would."""
    codec, channels = model.codecs[requests[0].target], model.prior.channels[requests[0].target]
    stream = open_stream(codec, requests)
    for plan in islice(codec.plan(requests[0].plan_request()), blocks):
        zeros_LC = torch.zeros(plan.length, channels)
        latents = Latents(z_LC=zeros_LC, block_lengths=(plan.length,), positions_LA=plan.positions_LA)
        stream.push([latents] * len(requests))
        stream.finished()
    stream.items()
