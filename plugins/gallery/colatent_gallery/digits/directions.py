"""The five ways from one modality to another: what is given, and what a model makes of it.

A caption is made for each of the ten digits in turn, scans are the first held-out ones, tones are drawn afresh: none of
it was trained on. Everything is a function of the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from colatent.evaluate.tasks import Progress
from colatent.generate.requests import Given
from colatent.latents.draws import generator
from colatent_gallery.digits.captions import caption
from colatent_gallery.digits.scans import Scans
from colatent_gallery.digits.settings import DigitsTaskConfig
from colatent_gallery.digits.tones import tone
from colatent_gallery.scores import hits

if TYPE_CHECKING:
    from colatent.generate.model import Model

Field = Literal["text", "image", "audio"]


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A way from one field to another, and the least accuracy that is aimed at."""

    given: Field
    target: Field
    goal: float

    @property
    def name(self) -> str:
        """The name of its figure."""
        return f"{self.given}_to_{self.target}"


DIRECTIONS = (
    Direction(given="text", target="image", goal=0.95),
    Direction(given="image", target="text", goal=0.95),
    Direction(given="text", target="audio", goal=0.98),
    Direction(given="audio", target="text", goal=0.98),
    Direction(given="image", target="audio", goal=0.90),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Real:
    """Real items of one field, and the digits that they are."""

    items: Sequence[Any]
    digits: Sequence[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a model made of real items in one direction, and the digits that it was judged to be."""

    direction: Direction
    given: Real
    made: Sequence[Any]
    judged: Sequence[int | None]

    @property
    def right(self) -> int:
        """How many were judged to be what was asked for."""
        return hits(self.given.digits, self.judged)


def real_items(config: DigitsTaskConfig, test: Scans, *, seed: int) -> dict[Field, Real]:
    """What models are asked with."""
    count, line = config.samples, config.line()
    cycled = [number % 10 for number in range(count)]
    draws = partial(generator, seed, "digits")
    return {
        "text": Real(items=[caption(each, draws("caption", i)) for i, each in enumerate(cycled)], digits=cycled),
        "image": Real(items=list(test.images[:count]), digits=[int(digit) for digit in test.digits[:count]]),
        "audio": Real(items=[tone(each, draws("tone", i), line=line) for i, each in enumerate(cycled)], digits=cycled),
    }


def generate(
    model: Model,
    direction: Direction,
    items: Sequence[Any],
    *,
    streams: Mapping[Field, str],
    seed: int,
    progress: Progress,
) -> list[Any]:
    """One sample for each given item."""
    made: dict[int, Any] = {}
    for again, numbers in enumerate(_rounds(items)):
        prompts = [[Given(streams[direction.given], items[number])] for number in numbers]
        results = model.generate_many(prompts, target=streams[direction.target], seed=seed + again)
        made |= {number: some[0].item for number, some in zip(numbers, results, strict=True)}
        progress(f"{direction.given} to {direction.target}", len(made), len(items))
    return [made[number] for number in range(len(items))]


def _rounds(items: Sequence[Any]) -> list[list[int]]:
    """Numbers of the items, those that say the same thing again each in a later round. A prompt names its noise, so
    the same caption needs another seed to give another picture."""
    rounds: list[list[int]] = []
    seen = Counter[Any]()
    for number, item in enumerate(items):
        key = item if isinstance(item, str) else number
        if seen[key] == len(rounds):
            rounds.append([])
        rounds[seen[key]].append(number)
        seen[key] += 1
    return rounds
