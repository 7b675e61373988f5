"""Counting in English words: a language whose continuation is known to the letter.

Some stretches of the number range are held out. A series of the training text never enters one, so that a prompt from
inside a held-out stretch asks for numbers that were never written: the model must have learnt how counting works. The
first hundred is always trained, since its numbers ("forty-one" with nothing before) are what others are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from colatent.errors import UserError

SEPARATOR = ", "
END = ".\n"
"""What ends a series; the next one, at another number, follows."""

# fmt: off
_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def words(n: int) -> str:
    """`n` (0 to 9999) in American English: no "and", tens and units hyphenated."""
    assert 0 <= n <= 9999
    if n < 20:
        return _SMALL[n]
    if n < 100:
        return _TENS[n // 10 - 2] + (f"-{_SMALL[n % 10]}" if n % 10 else "")
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    return f"{_SMALL[n // size]} {name}" + (f" {words(n % size)}" if n % size else "")


def series(numbers: Iterable[int]) -> str:
    """The numbers as words, one after the other, without an end."""
    return SEPARATOR.join(map(words, numbers))


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """The number range, cut into runs that are trained and stretches that are held out; both in ascending order."""

    trained: tuple[range, ...]
    heldout: tuple[range, ...]


def split_range(top: int, *, stretches: int, length: int, seed: int) -> Ranges:
    """Hold out `stretches` stretches of `length` numbers of 0 to `top`, spread over the range, none below 100."""
    slots = np.arange(-(-100 // length), (top + 1) // length)
    if len(slots) < 2 * stretches:
        what = f"{stretches} stretches of {length} numbers are more than half of 100 to {top}"
        raise UserError(what, where="heldout_stretches", do="hold out less or raise top")
    rng = np.random.default_rng(seed)
    # One in each part of the range, never a part's last: what is trained between two stretches is never empty.
    chosen = [int(rng.choice(part[:-1])) for part in np.array_split(slots, stretches)]
    heldout = tuple(range(slot * length, (slot + 1) * length) for slot in chosen)
    borders = [0, *(border for stretch in heldout for border in (stretch.start, stretch.stop)), top + 1]
    runs = (range(a, b) for a, b in zip(borders[::2], borders[1::2], strict=True))
    return Ranges(trained=tuple(run for run in runs if run), heldout=heldout)


def random_series(runs: tuple[range, ...], rng: np.random.Generator, *, lengths: tuple[int, int]) -> Iterator[str]:
    """Endless text of ended series: each starts at a random number of `runs` and stays in its run."""
    numbers = np.concatenate([np.asarray(run) for run in runs])
    stops = np.concatenate([np.full(len(run), run.stop) for run in runs])
    while True:
        at = rng.integers(len(numbers))
        start, length = int(numbers[at]), int(rng.integers(lengths[0], lengths[1] + 1))
        yield series(range(start, min(start + length, int(stops[at])))) + END


def continuations(runs: Iterable[range], *, chars: int) -> list[range]:
    """Every rest of a run, from some number to the run's last, whose series has at least `chars` characters."""
    found: list[range] = []
    for run in runs:
        size = -len(SEPARATOR)
        for start in reversed(run):
            size += len(words(start)) + len(SEPARATOR)
            if size >= chars:
                found.append(range(start, run.stop))
    return sorted(found, key=lambda numbers: numbers.start)
