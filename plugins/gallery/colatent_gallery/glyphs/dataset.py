"""Dataset `glyphs`: Unicode names of characters with their pictures, both ways of the same fact.

Little enough to be learnt in minutes, and checkable: whether a picture is the right one is told by the nearest of all
true ones, whether a name is by comparing strings. Held out are combinations of letters and marks.
"""

from __future__ import annotations

import numpy as np

from colatent.data.dataset import Sample, Split
from colatent_gallery.glyphs.faces import SIDE, load_alphabet
from colatent_gallery.glyphs.settings import GlyphsConfig
from colatent_gallery.glyphs.split import split_glyphs


class Glyphs:
    """`{"text": name, "image": float32 (1, 32, 32), 1 is ink}`."""

    def __init__(self, config: GlyphsConfig, *, split: Split) -> None:
        self._shift = config.shift if split == "train" else 0
        train, heldout = split_glyphs(config.heldout, config.seed)
        self._numbers = train if split == "train" else heldout

    def __len__(self) -> int:
        return len(self._numbers)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        alphabet, number = load_alphabet(), self._numbers[index]
        picture = alphabet.pictures_NHW[number]
        if self._shift:
            picture = moved(picture, *rng.integers(-self._shift, self._shift + 1, size=2).tolist())
        return {"text": alphabet.names[number], "image": picture[None].copy()}


def moved(picture_HW: np.ndarray, down: int, right: int) -> np.ndarray:
    """The picture, moved; what leaves it is lost and what comes in is blank."""
    room = max(abs(down), abs(right))
    padded = np.pad(picture_HW, room)
    return padded[room - down : room - down + SIDE, room - right : room - right + SIDE]
