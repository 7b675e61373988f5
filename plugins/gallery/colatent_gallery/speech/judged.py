"""What came of judging a model of spoken digits, and its figures by the names under which programs find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from colatent.evaluate.intervals import wilson
from colatent_gallery.scores import hits

MOST_LOST = 0.05
"""Of held-out recordings that are told right, the share that may be lost on the way through the codec."""
GOALS = {"text_to_audio": 0.85, "audio_to_text": 0.85}


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """Some of a kind, one after the other: what was given, what was made of it, the digits that it should be, and those
    that it was judged to be."""

    given: Sequence[Any]
    made: Sequence[Any]
    digits: Sequence[int]
    judged: Sequence[int | None]

    @property
    def right(self) -> int:
        """How many are what they should be."""
        return hits(self.digits, self.judged)

    @property
    def share(self) -> float:
        """The same as a share of 1."""
        return self.right / len(self.digits)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """All that was found.

    real            held-out recordings
    reconstruction  the same after the codec
    text_to_audio   sounds of captions
    audio_to_text   captions of held-out recordings
    """

    real: Heard
    reconstruction: Heard
    text_to_audio: Heard
    audio_to_text: Heard

    def named(self) -> dict[str, Heard]:
        """Each by the name of its figure."""
        return {
            "reconstruction": self.reconstruction,
            "text_to_audio": self.text_to_audio,
            "audio_to_text": self.audio_to_text,
            "real": self.real,
        }

    def figures(self) -> dict[str, float]:
        """Shares that are right."""
        return {name: some.share for name, some in self.named().items()}

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Their 95 % intervals."""
        return {name: wilson(some.right, len(some.digits)) for name, some in self.named().items()}

    def goals(self) -> dict[str, float]:
        """The least that they should be; that of reconstruction hangs on how well real ones are told."""
        return {"reconstruction": max(0.0, self.real.share - MOST_LOST), **GOALS}
