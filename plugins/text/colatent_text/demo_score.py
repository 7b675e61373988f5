"""The figures of the demo: what a finished run can do on each of its two streams, beside a 5-gram baseline.

Everything here is counted on held-out material or on generated text; the same prompts go to the model and the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from colatent.config import RunConfig, validate
from colatent.data.dataset import Dataset, Split
from colatent.data.mixture import first_samples
from colatent.generate.model import Model
from colatent.latents.draws import torch_generator
from colatent_text.codec import TextCodec
from colatent_text.datasets import Counting, CountingConfig, UnicodeNames, UnicodeNamesConfig
from colatent_text.demo_metrics import CountingPrompt, NameScores, counting_exact, counting_prompts, score_names
from colatent_text.names import SEPARATOR, split_names, vocabulary
from colatent_text.ngram import NGram

SAMPLES = 512
"""Samples of each kind; at least 500."""
BYTES = 32
"""Bytes of a continuation that have to be right."""
NGRAM_WINDOWS = 4000
"""Training windows that the baseline counts."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Seed and streams as the run was configured: what it was not trained on depends on them."""

    seed: int
    names: UnicodeNamesConfig
    counting: CountingConfig

    @classmethod
    def of(cls, config: RunConfig) -> Material:
        """The material of a demo's config."""
        sources = config.data.sources
        return cls(
            seed=config.seed,
            names=validate(UnicodeNamesConfig, sources["names"].config, where="data.sources.names.config"),
            counting=validate(CountingConfig, sources["counting"].config, where="data.sources.counting.config"),
        )

    def datasets(self, split: Split) -> dict[str, Dataset]:
        """One split of both streams."""
        return {"names": UnicodeNames(self.names, split=split), "counting": Counting(self.counting, split=split)}


def reconstruction(codec: TextCodec, material: Material, *, length: int) -> dict[str, float]:
    """Share of held-out tokens that decode from a posterior sample, by kind."""
    found = {}
    for name, dataset in material.datasets("heldout").items():
        right = count = 0
        drawn = first_samples(dataset, name, count=SAMPLES, seed=material.seed)
        for start in range(0, len(drawn), 32):
            items = [one.sample["text"] for one in drawn[start : start + 32]]
            generator = torch_generator(material.seed, "reconstruction", name, start)
            good, total = _score(codec, codec.cut(items, [length] * len(items)), generator)
            right, count = right + good, count + total
        found[name] = right / count
    return found


@torch.no_grad()
def _score(codec: TextCodec, items: Sequence[Any], generator: torch.Generator) -> tuple[int, int]:
    records = codec.encode(items)
    latents = [record.sample(torch.randn(record.mean_LC.shape, generator=generator)) for record in records]
    return codec.reconstruction_score(items, latents)


def fit_baseline(material: Material) -> NGram:
    """A 5-gram over bytes of both streams' training text."""
    sets = material.datasets("train")
    drawn = [one for name in sets for one in first_samples(sets[name], name, count=NGRAM_WINDOWS, seed=material.seed)]
    return NGram.fit(one.sample["text"].text for one in drawn)


def counting_score(model: Model, baseline: NGram, material: Material) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Share of continuations right to the letter: in the trained range, in held-out stretches, after long prompts, and
    by prompt length modulo the block; and some to read."""
    codec = model.codecs["text"]
    assert isinstance(codec, TextCodec)
    ranges, seed = material.counting.ranges(), material.seed
    block, encode = codec.config.block, codec.tokenizer.encode
    asked = {
        "trained": counting_prompts(SAMPLES, seed=seed, runs=ranges.trained, encode=encode, block=block),
        "heldout": counting_prompts(SAMPLES, seed=seed + 1, runs=ranges.heldout, encode=encode, block=block),
        "three_windows": counting_prompts(
            max(block, SAMPLES // 4), seed=seed + 2, runs=ranges.trained, encode=encode, block=block, chars=(1600, 1700)
        ),
    }
    found: dict[str, Any] = {}
    texts = {name: _continue(model, prompts, seed=seed) for name, prompts in asked.items()}
    for name, prompts in asked.items():
        found[name] = _share(_right(prompts, texts[name]))
    trained = asked["trained"]
    found["by_residue"] = _by_residue(trained, _right(trained, texts["trained"]), block)
    guessed = [baseline.continue_greedy(one.prompt, BYTES) for one in trained]
    found["baseline"] = _share(_right(trained, guessed))
    return found, [{"prompt": one.prompt, "text": text} for one, text in zip(trained, texts["trained"], strict=True)]


def _continue(model: Model, prompts: Sequence[CountingPrompt], *, seed: int) -> list[str]:
    """The model's continuations. Asked in order of residue, so that a batch needs the same number of blocks."""
    codec = model.codecs["text"]
    assert isinstance(codec, TextCodec)
    order = sorted(range(len(prompts)), key=lambda number: prompts[number].tokens % codec.config.block)
    results = model.generate_many([prompts[number].prompt for number in order], max_new_tokens=13, seed=seed)
    texts = [""] * len(prompts)
    for number, (result,) in zip(order, results, strict=True):
        texts[number] = result.item
    return texts


def _right(prompts: Sequence[CountingPrompt], texts: Sequence[str]) -> list[bool]:
    return [counting_exact(text, one.truth, count=BYTES) for one, text in zip(prompts, texts, strict=True)]


def _by_residue(prompts: Sequence[CountingPrompt], right: Sequence[bool], block: int) -> list[float]:
    return [
        _share(flag for one, flag in zip(prompts, right, strict=True) if one.tokens % block == residue)
        for residue in range(block)
    ]


def _share(flags: Any) -> float:
    found = [bool(flag) for flag in flags]
    return sum(found) / len(found)


def names_score(
    model: Model, baseline: NGram, material: Material
) -> tuple[dict[str, Mapping[str, float]], list[dict[str, str]]]:
    """What follows a few training names: judged for the model and the baseline; and all samples."""
    train, heldout = split_names(material.names.seed, material.names.heldout)
    known = vocabulary((*train, *heldout))
    rng = np.random.default_rng(material.seed)
    prompts = [SEPARATOR.join([*rng.choice(train, size=4), ""]).rstrip() for _ in range(SAMPLES)]
    results = model.generate_many(prompts, max_new_tokens=24, seed=material.seed)
    texts = [result.item for (result,) in results]
    guessed = [baseline.generate(prompt, 100, rng=rng) for prompt in prompts]

    def judge(samples: Sequence[str]) -> NameScores:
        return score_names(samples, train=train, heldout=heldout, vocabulary=known, whole=True)

    return {"model": vars(judge(texts)), "baseline": vars(judge(guessed))}, [
        {"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)
    ]
