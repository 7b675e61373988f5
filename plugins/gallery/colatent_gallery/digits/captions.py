"""Captions of digits, and the reader that says which digit a caption names.

The wording varies and says nothing, the number word says all: a model must find the one word that matters. The reader
knows no template: it looks for number words anywhere, so that it judges what a model writes and not how.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TEMPLATES = (
    "{}",
    "a handwritten {}",
    "the digit {}",
    "the figure {}",
    "the number {}",
    "number {}",
    "digit {}, please",
    "key {} of a telephone",
    "the {} key",
    "press {}",
    "dial {}",
    "this is {}",
    "that must be {}",
    "it says {}",
    "it reads {}",
    "somebody chose {}",
    "the answer is {}",
    "we noted {}",
    "exactly {}",
    "{}, as plain as day",
    "{} and nothing else",
    "a sign for {}",
    "here comes {}",
    "the caller wants {}",
)
"""Wordings in which a number word takes the place of the braces."""

SPOKEN = (
    "{}",
    "the word {}",
    "a voice says {}",
    "somebody says {}",
    "you hear {}",
    "spoken {}",
    "{}, said aloud",
    "the digit {}",
    "the number {}",
    "say {}",
    "it sounds like {}",
    "{}, please",
)
"""The same of what is heard."""

TOKEN = re.compile(r"[a-z]+|\d+")


def caption(digit: int, rng: np.random.Generator, *, templates: Sequence[str] = TEMPLATES) -> str:
    """A caption of `digit`, in a wording drawn from `rng`."""
    return templates[int(rng.integers(len(templates)))].format(WORDS[digit])


def read_digit(text: str) -> int | None:
    """The digit that a caption names; None where it names none, several, or a number that is no digit."""
    numbers = {number for token in TOKEN.findall(text.lower()) if (number := _number(token)) is not None}
    return min(numbers) if len(numbers) == 1 and numbers <= set(range(10)) else None


def _number(token: str) -> int | None:
    if token.isdigit():
        return int(token)
    return WORDS.index(token) if token in WORDS else None
