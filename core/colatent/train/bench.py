"""The speed of training the prior: the trainer's own step, on the data of a config or on items that are made up.

Made-up items are latents, or token ids that the codec encodes in each step. Codecs that were never trained are taken as
they are, for here nothing hangs on what their latents mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from colatent.checkpoint.codecs import CodecFacts, build_codec, facts_now
from colatent.checkpoint.run import RunFolder
from colatent.config.checks import validate
from colatent.config.schema import RunConfig, SegmentConfig
from colatent.data.dataset import Sample
from colatent.data.mixture import Drawn, Draws
from colatent.data.sources import Sources
from colatent.errors import UserError
from colatent.evaluate.bench import Bench, Measured, fill_zeros
from colatent.evaluate.flops import count_flops, training_flops
from colatent.latents.draws import digest
from colatent.latents.sequence import LatentSequence
from colatent.plugins.contract import Codec, Promptable
from colatent.plugins.latents import Encoded, Item
from colatent.plugins.pluginset import PluginSet
from colatent.plugins.records import LatentSpec
from colatent.prior.fused import check_compiler
from colatent.train.budgets import budgeted, check_budgets
from colatent.train.codecs import build_codecs
from colatent.train.device import pick_device
from colatent.train.loop import Trainer
from colatent.train.prepare import Run, prepare
from colatent.train.prior_stage import PriorStage, generated_units
from colatent.train.progress import Reporter
from colatent.train.sequences import build_sequences
from colatent.train.world import World

SAMPLES = 64
"""Samples of a made-up source."""
ENDLESS = 10**9
"""Steps of a stage that is not trained to its end: it never logs, evaluates or saves."""


class LatentItems(nn.Module):
    """In the place of a codec: items that are latents (L, C) already, handed over as they are."""

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        self.spec = spec

    def latent_spec(self) -> LatentSpec:
        """See `Codec.latent_spec`."""
        return self.spec

    def encode(self, items: Sequence[torch.Tensor], *, generator: torch.Generator | None = None) -> list[Encoded]:
        """See `Codec.encode`; each latent holds one unit or more."""
        assert self.spec.block is not None
        units = max(1, round(self.spec.units_per_latent))
        return [
            Encoded(
                mean_LC=item,
                logvar_LC=None,
                block_lengths=(self.spec.block,) * (len(item) // self.spec.block),
                positions_LA=torch.arange(len(item), dtype=torch.float32)[:, None],
                units_L=torch.full((len(item),), units),
            )
            for item in items
        ]


class NoFolder(RunFolder):
    """In the place of a run folder: what a step that is not finite logs goes nowhere."""

    def log(self, record: Mapping[str, Any]) -> None:
        """See `RunFolder.log`."""


class MadeUp:
    """A dataset of items that a function makes from a sample's randomness."""

    def __init__(self, field: str, make: Callable[[np.random.Generator], Item]) -> None:
        self._field, self._make = field, make

    def __len__(self) -> int:
        return SAMPLES

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """See `Dataset.sample`."""
        return {self._field: self._make(rng)}


def prior_stage(config: RunConfig) -> Literal["prior", "joint"]:
    """The stage whose settings the prior trains with: its own, or else stage joint."""
    if "prior" in config.stages:
        return "prior"
    if "joint" in config.stages:
        return "joint"
    raise UserError("none of them trains a prior", where="stages", do="give a config with stage prior or joint")


def configured_run(config: RunConfig, plugins: PluginSet) -> Run:
    """The run of a config on its own data, without a cache of latents."""
    run = prepare(config, plugins)
    build_codecs(run)
    check_budgets(run)
    run.facts |= {name: _as_trained(facts) for name, facts in run.facts.items()}
    return run


def run_on_latents(config: RunConfig, plugins: PluginSet) -> Run:
    """The run of a config's only stream on random latents: the prior alone."""
    ((_, stream),) = config.streams.items()
    spec = validate(plugins.codec_config(stream.codec), stream.config).latent_spec()
    facts = CodecFacts(codec=stream.codec, config={}, channels=spec.channels, hash="", trained=False)

    def make(rng: np.random.Generator) -> Item:
        return torch.from_numpy(rng.standard_normal((config.data.length, spec.channels), dtype=np.float32))

    return _made_up_run(config, plugins, cast(Codec, LatentItems(spec)), facts, make)


def run_on_ids(config: RunConfig, plugins: PluginSet, *, vocabulary: int) -> Run:
    """The run of a config's only stream on random token ids, which its codec, of fresh weights, encodes in every step.
    Id 0 may be padding, and is left out."""
    ((name, stream),) = config.streams.items()
    with torch.random.fork_rng(devices=[]):  # other weights decode other texts, which may end sooner
        torch.manual_seed(digest(config.seed, "codec", name) % 2**63)
        codec = build_codec(stream.codec, stream.config, plugins=plugins, where=f"streams.{name}", assets={})
    facts = facts_now(codec, name=stream.codec, settings=stream.config, trained=False)
    assert isinstance(codec, Promptable)
    length = round(config.data.length * codec.latent_spec().units_per_latent)

    def make(rng: np.random.Generator) -> Item:
        return codec.prompt(rng.integers(1, vocabulary, size=length).tolist())

    return _made_up_run(config, plugins, codec, facts, make)


def _made_up_run(
    config: RunConfig, plugins: PluginSet, codec: Codec, facts: CodecFacts, make: Callable[[np.random.Generator], Item]
) -> Run:
    """A run of one stream on one source of made-up items; the dataset that the config names is not looked for."""
    ((stream, _),), ((source, _),) = config.streams.items(), config.data.sources.items()
    dataset, device = MadeUp(stream, make), pick_device(config.device)
    assert isinstance(codec, nn.Module)
    return Run(
        config=config,
        plugins=plugins,
        device=device,
        sources=Sources(
            training={source: (dataset, 1.0)},
            heldout={source: dataset},
            segments={source: (SegmentConfig(stream=stream),)},
            fields={stream: stream},
        ),
        infos={},
        codecs={stream: codec.to(device).eval()},
        facts={stream: _as_trained(facts)},
    )


def _as_trained(facts: CodecFacts) -> CodecFacts:
    """The facts of a codec whose latents are taken to be at unit scale, if nobody has measured them."""
    return facts if facts.trained else replace(facts, trained=True, std=(1.0,) * facts.channels)


def bench_training(run: Run, bench: Bench) -> Measured:
    """Measure steps of stage `prior`: drawing, encoding, loss, gradient, clipping and the optimiser's step."""
    long = {"steps": ENDLESS, "log_every": ENDLESS}
    name = prior_stage(run.config)
    config = run.config.stages[name].model_copy(update=long)
    if config.compile:
        check_compiler(run.device, where=f"stages.{name}.compile")
    stage = PriorStage(run, config)
    fill_zeros(stage.module)
    trainer = Trainer(
        stage,
        config,
        folder=NoFolder(Path(run.config.name)),
        mixture=_draws(run),
        fingerprint=run.plugins.fingerprint,
        device=run.device,
        reporter=Reporter(quiet=True),
        world=World(),
    )
    seconds, memory, peak = bench.run(trainer.train_step)
    tokens, flops = _count(run, config.batch, bench)
    return Measured(seconds=seconds, tokens=tokens, flops=flops, memory=memory, peak=peak)


def _draws(run: Run) -> Draws:
    """The samples of a run's stage, step by step, from the first."""
    name = prior_stage(run.config)
    stage = run.config.stages[name]
    mixture = run.sources.mixture(seed=run.config.seed, whole=stage.draw == "step")
    return mixture if stage.budget is None else budgeted(run, mixture, stage=name)


def _count(run: Run, batch: int, bench: Bench) -> tuple[list[float], dict[str, int]]:
    """Tokens of each step that was measured, and FLOPs of all: their samples are drawn once more."""
    draws, tokens, flops = _draws(run), [], Counter[str]()
    steps = [draws.take(batch) for _ in range(bench.warmup + bench.repeats)]
    channels = {name: codec.latent_spec().channels for name, codec in run.codecs.items()}
    for drawn in steps[bench.warmup :]:
        sequences: list[LatentSequence] = []
        flops["codec"] += count_flops(partial(_encode, run, drawn, sequences))
        flops["prior"] += training_flops(run.config.prior, channels, sequences)
        tokens.append(float(generated_units(sequences)))
    return tokens, flops


def _encode(run: Run, drawn: Sequence[Drawn], found: list[LatentSequence]) -> None:
    """Append what the stage makes of these samples."""
    segments, config = run.sources.segments, run.config
    found += build_sequences(drawn, streams=run.streams, segments=segments, flow=config.flow, seed=config.seed)
