"""A trained model: codecs, a prior, and `generate`.

Whole items, pieces as blocks arrive, and the states between the solver's steps are three ways of looking at one run
(`colatent.generate.running`), so they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from colatent.checkpoint.codecs import CodecFacts, check_options, check_same_codec, load_codec, load_weights
from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.resolve import resolve_model
from colatent.config.checks import validate
from colatent.config.prior import PriorConfig
from colatent.config.sampling import SampleConfig
from colatent.errors import UserError
from colatent.generate.precision import Computing, Precision
from colatent.generate.prompts import Read, default_target, read_prompt, read_prompts
from colatent.generate.replays import Kept, replaying
from colatent.generate.requests import (
    Ask,
    Asked,
    Given,
    Piece,
    Prompt,
    Request,
    Result,
    State,
    check_counts,
    settle,
)
from colatent.generate.running import Running, batches, block_lengths
from colatent.plugins.contract import Codec
from colatent.plugins.latents import Item
from colatent.plugins.pluginset import PluginSet, load_plugins
from colatent.prior.dit import Prior
from colatent.prior.fused import check_compiler, fuse

BATCH = 64
"""Samples that are generated together at most."""


def load(
    path: str | Path,
    *,
    plugins: PluginSet | None = None,
    device: str = "cpu",
    ema: bool = True,
    precision: Precision = "float32",
    compiled: bool = False,
) -> Model:
    """The model in a run, a stage's checkpoints or one checkpoint; with `ema` its averaged weights, if it has them.

    `precision` is what it generates in: "bf16" is faster where the device multiplies in it, and slightly less exact.
    `compiled` compiles what layers do to rows when the first item is generated, which takes up to a minute.
    A checkpoint of stage joint whose codecs are averages has no other pair: there, `ema=False` is refused.
    """
    checkpoint, plugins = resolve_model(path), plugins or load_plugins()
    if not checkpoint.has("prior"):
        raise UserError("has no prior yet, only codecs", where=str(checkpoint.path), do="train stage prior first")
    stored = checkpoint.document("model")
    if stored.get("average_only") and not ema:
        what = "its codecs are saved as their average, which goes with the averaged prior"
        raise UserError(what, where=str(checkpoint.path), do="load it with ema=True")
    codecs = {}
    for name, remembered in stored["codecs"].items():
        codec, facts = load_codec(checkpoint, name, plugins=plugins)
        check_same_codec(CodecFacts(**remembered), facts, stream=name, where=str(checkpoint.path))
        codecs[name] = codec.to(device).eval().requires_grad_(False)  # type: ignore[attr-defined]
    return Model(
        prior=_load_prior(checkpoint, stored, ema=ema).to(device),
        codecs=codecs,
        sample=validate(SampleConfig, stored["sample"], where="sample"),
        window=stored["window"],
        precision=precision,
        compiled=compiled,
    )


def _load_prior(checkpoint: Checkpoint, stored: Mapping[str, Any], *, ema: bool) -> Prior:
    prior = Prior(validate(PriorConfig, stored["prior"], where="prior"), stored["channels"])
    group = "prior.ema" if ema and checkpoint.has("prior.ema") else "prior"
    load_weights(prior, checkpoint.tensors(group), where=f"{checkpoint.path}/{group}.safetensors")
    return prior.eval().requires_grad_(False)


class Model:
    """Codecs by stream and the prior over their latents."""

    def __init__(
        self,
        *,
        prior: Prior,
        codecs: Mapping[str, Codec],
        sample: SampleConfig,
        window: int,
        precision: Precision = "float32",
        compiled: bool = False,
        replay: bool = True,
    ) -> None:
        """`window`: latents of history that the prior was trained to look back at. `precision`, `compiled`: see `load`;
        "bf16" casts matrices of prior and codecs, in place. `replay`: whether passes are recorded, where that works."""
        self.prior, self.codecs, self.sample, self.window = prior, dict(codecs), sample, window
        device = next(prior.parameters()).device
        if compiled:
            check_compiler(device, where="compiled")
            fuse(prior, always=True)
        self._kept = Kept() if replay and replaying(device) else None
        networks: tuple[Any, ...] = (prior, *self.codecs.values())
        self.computing = Computing(precision, networks, device=device, compiled=(prior,) if compiled else ())

    def generate(self, prompt: Prompt = "", **ask: Unpack[Ask]) -> Item:
        """One item: what continues a string or token ids (the continuation only), or an item of stream `target` given
        others; the last of them may be its own beginning (`Given`). Keywords: see `Ask`."""
        return self.generate_many([prompt], **ask)[0][0].item

    def generate_many(
        self, prompts: Sequence[Prompt], *, n: int = 1, batch: int = BATCH, progress: Any = None, **ask: Unpack[Ask]
    ) -> list[list[Result]]:
        """`n` samples for each prompt. Sample i of any prompt depends on (seed, i) and the prompt, never on the batch.

        `progress(done, total)` is called after each batch. Other keywords: see `Ask`.
        """
        asked = self._settle(ask)
        check_counts(n=(n, 1), batch=(batch, 1))
        if isinstance(prompts, str):
            raise UserError(
                "prompts is one string", where="generate_many", do="give a list of prompts, or use generate"
            )
        with self.computing():
            every = read_prompts(self.codecs, prompts, target=asked.target)
        requests = [request for read in every for request in self._requests(read, asked=asked, samples=range(n))]
        results: dict[int, Result] = {}
        for some in batches(self.codecs, requests, size=batch):
            running = self._run([requests[number] for number in some.numbers], asked, new=sum(some.lengths))
            for _ in running.events():
                pass
            results |= zip(some.numbers, running.results(), strict=True)
            if progress is not None:
                progress(len(results), len(requests))
        return [[results[start + number] for number in range(n)] for start in range(0, len(requests), n)]

    def stream(self, prompt: Prompt = "", *, sample: int = 0, **ask: Unpack[Ask]) -> Iterator[Piece]:
        """One item, piece after piece as its blocks are made: joined, the very item of `generate_many(...)[0][sample]`.
        What is wrong with the call is told at once; blocks are computed as pieces are asked for."""
        return self._run_one(prompt, sample=sample, ask=ask).pieces()

    def watch(
        self, prompt: Prompt = "", *, sample: int = 0, decode: bool = True, **ask: Unpack[Ask]
    ) -> Iterator[State | Piece]:
        """The same with the states between the solver's steps. `decode` also decodes the model's estimate in each, one
        more pass of the codec's decoder a step."""
        return self._run_one(prompt, sample=sample, ask=ask).states(decode=decode)

    def _settle(self, ask: Ask) -> Asked:
        """What is asked, with the config's settings for the stream that is generated."""
        return settle(self.sample.of(ask.get("target") or default_target(self.codecs)), ask)

    def _requests(self, read: Read, *, asked: Asked, samples: Sequence[int]) -> list[Request]:
        options = {**self.sample.options.get(read.target, {}), **asked.options}
        checked = check_options(self.codecs[read.target], options, stream=read.target, where="")
        return [
            Request(
                target=read.target,
                given=read.given,
                own=read.own,
                # Strings name the noise too: else all prompts of a call would be answered from the same few draws.
                names=(asked.seed, number, read.name),
                max_units=asked.units,
                options=checked,
            )
            for number in samples
        ]

    def _run(self, requests: Sequence[Request], asked: Asked, *, new: int) -> Running:
        codec = self.codecs[requests[0].target]
        return Running(
            self.prior,
            codec,
            requests,
            settings=asked.settings,
            window=self.window,
            new=new,
            computing=self.computing,
            kept=self._kept,
        )

    def _run_one(self, prompt: Prompt, *, sample: int, ask: Ask) -> Running:
        asked = self._settle(ask)
        check_counts(sample=(sample, 0))
        with self.computing():
            read = read_prompt(self.codecs, prompt, target=asked.target)
        requests = self._requests(read, asked=asked, samples=[sample])
        return self._run(requests, asked, new=sum(block_lengths(self.codecs[requests[0].target], requests[0])))


__all__ = ["Given", "Model", "load"]
