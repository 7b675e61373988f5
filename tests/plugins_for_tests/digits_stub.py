"""A model that knows the answers, or does not: what judges are tested on.

It is asked as a real one is, through `generate_many`, and answers with real material of its own draw: of the digit that
was given, or of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from colatent.generate.requests import Given
from colatent.latents.draws import generator
from colatent_gallery.digits.captions import caption, read_digit
from colatent_gallery.digits.classifier import ScanJudge
from colatent_gallery.digits.detector import detect
from colatent_gallery.digits.scans import load_scans
from colatent_gallery.digits.settings import DigitsConfig
from colatent_gallery.digits.tones import tone

STREAMS = ("text", "image", "audio")


class StubModel:
    """Answers with an item of the digit `answer(digit, rng)`."""

    def __init__(
        self, answer: Callable[[int, np.random.Generator], int], *, streams: Sequence[str] = STREAMS, same: bool = False
    ) -> None:
        self.codecs: dict[str, Any] = dict.fromkeys(streams)
        self.answer, self.same = answer, same
        self.test = load_scans(heldout=0.2, seed=0)[1]
        self.calls: list[int] = []

    def generate_many(self, prompts: Sequence[Sequence[Given]], *, target: str, seed: int) -> list[list[Any]]:
        self.calls.append(seed)
        made = []
        for number, (given,) in enumerate(prompts):
            rng = generator(seed, number)
            made.append([SimpleNamespace(item=self._item(target, self.answer(self._digit(given), rng), rng))])
        return made

    def _digit(self, given: Given) -> int:
        read = {
            "text": read_digit,
            "audio": lambda sound: detect(sound, rate=8000),
            "image": lambda image: int(self.test.digits[(self.test.images == image).all(axis=(1, 2, 3)).argmax()]),
        }[given.stream](given.item)
        assert read is not None
        return read

    def _item(self, target: str, digit: int, rng: np.random.Generator) -> Any:
        if target == "text":
            return caption(digit, rng)
        if target == "audio":
            return tone(digit, rng, line=DigitsConfig().line())
        images, digits = sure_scans()
        ours = images[digits == digit]
        return ours[0 if self.same else int(rng.integers(len(ours)))]


@cache
def sure_scans() -> tuple[np.ndarray, np.ndarray]:
    """Training scans that the judge reads as they are labelled, and their digits: they must be beyond doubt."""
    training, _ = load_scans(heldout=0.2, seed=0)
    sure = np.array(ScanJudge(training).read(training.images)) == training.digits
    return training.images[sure], training.digits[sure]
