"""Our generation against that of the published code: the same noise, token for token, through the cached path.

The published loop shares one budget of whole blocks over the batch and trims prompts afterwards; ours counts tokens per
prompt. The blocks are therefore counted here, and the sampler and the decode stream that `generate` uses are run for so
many of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import pytest
import torch

from colatent.generate.engine import BlockSampler
from colatent.generate.requests import Request, Settings
from colatent_text.items import Text
from golden.conftest import Golden


class GivenNoise(BlockSampler):
    """The sampler with noise from the golden vectors; a request is named by its row there."""

    golden: Golden

    def noise(self, length: int) -> torch.Tensor:
        rows = self.golden.vectors[f"generate.noise.{self._number}"].unflatten(0, (-1, length))
        return rows[[int(request.names[0]) for request in self.requests]]


def blocks(golden: Golden) -> int:
    """How many blocks the published loop generates, for every prompt of the batch."""
    per, size, new = golden.codec.config.tokens_per_latent, golden.block, golden.generation["max_new_tokens"]
    lacking = [-math.ceil(len(prompt) / per) % size for prompt in golden.generation["prompts"]]
    return 1 if any(0 < new < count for count in lacking) else math.ceil(new / (per * size))


@torch.no_grad()
def generate(golden: Golden, numbers: Sequence[int]) -> list[list[int]]:
    """Tokens generated for these prompts, together."""
    settings, codec = golden.generation, golden.codec
    own = [codec.encode([Text(ids=tuple(settings["prompts"][number]), ends=False)])[0] for number in numbers]
    requests = [
        Request(target="text", own=record, names=(number,)) for record, number in zip(own, numbers, strict=True)
    ]
    flow = Settings(steps=settings["steps"], solver="euler", guidance=settings["guidance"])
    sampler = GivenNoise(golden.model.prior, codec, requests, settings=flow, window=golden.model.window)
    sampler.golden = golden
    options = {"repetition_penalty": settings.get("repetition_penalty", 1.0)}
    stream = codec.open_stream(own, max_units=10**6, options=options)
    for made in islice(sampler, blocks(golden)):
        stream.push(made)
    return [facts["tokens"] for facts in stream.details()]


@pytest.mark.parametrize("together", [True, False], ids=["as a batch", "one by one"])
def test_golden_tokens(golden: Golden, together: bool) -> None:
    published = golden.generation["tokens"]
    everyone = range(len(published))
    found = generate(golden, everyone) if together else [generate(golden, [number])[0] for number in everyone]
    assert found == published
