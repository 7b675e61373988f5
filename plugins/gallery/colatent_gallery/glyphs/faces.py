"""Characters, their Unicode names and their pictures, drawn from the DejaVu Sans that matplotlib ships.

Letters of the Latin, Greek and Cyrillic blocks, and signs. Only characters that the font's character map has are taken:
for any other, a font draws the same empty box. All are drawn at one size on one baseline, so that an accented letter is
the plain letter, pixel for pixel, and its accent: the size is the largest at which every one of them fits the picture.

Axes: N characters, H rows, W columns.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

SIDE = 32
"""Pixels along a picture's side."""
SIZE = 22
"""Size of the font in pixels."""
BASELINE = 25
"""Row on which letters stand."""

BLOCKS = {
    "Basic Latin": (0x0021, 0x007E),
    "Latin-1 Supplement": (0x00A1, 0x00FF),
    "Latin Extended-A": (0x0100, 0x017F),
    "Latin Extended-B": (0x0180, 0x024F),
    "IPA Extensions": (0x0250, 0x02AF),
    "Greek": (0x0370, 0x03FF),
    "Cyrillic": (0x0400, 0x04FF),
    "Cyrillic Supplement": (0x0500, 0x052F),
    "Latin Extended Additional": (0x1E00, 0x1EFF),
    "Greek Extended": (0x1F00, 0x1FFF),
    "Currency Symbols": (0x20A0, 0x20BF),
    "Arrows": (0x2190, 0x21FF),
    "Latin Extended-C": (0x2C60, 0x2C7F),
    "Latin Extended-D": (0xA720, 0xA7FF),
}
"""First and last code point of what is drawn, by the block's Unicode name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Alphabet:
    """Every character, in code point order.

    names         Unicode names, each once
    pictures_NHW  float32 in 0..1: 1 is ink
    classes_N     number of each character's picture: names whose pictures are identical share one
    """

    names: tuple[str, ...]
    pictures_NHW: np.ndarray
    classes_N: np.ndarray


@functools.cache
def load_alphabet() -> Alphabet:
    """All characters, drawn once."""
    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    known = FT2Font(str(path)).get_charmap()
    spans = (range(first, last + 1) for first, last in BLOCKS.values())
    characters = [chr(point) for span in spans for point in span if point in known and _is_drawn(chr(point))]
    font = ImageFont.truetype(str(path), SIZE, layout_engine=ImageFont.Layout.BASIC)
    pictures_NHW = np.stack([_draw(character, font) for character in characters])
    flat = pictures_NHW.reshape(len(characters), -1)
    return Alphabet(
        names=tuple(map(unicodedata.name, characters)),
        pictures_NHW=pictures_NHW.astype(np.float32) / 255,
        classes_N=np.unique(flat, axis=0, return_inverse=True)[1].reshape(-1),
    )


def _is_drawn(character: str) -> bool:
    """Whether a character has a name and ink of its own: no mark that combines, space or control."""
    return bool(unicodedata.name(character, "")) and unicodedata.category(character)[0] not in "CMZ"


def _draw(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Ink of a character, uint8 (H, W), centred by its advance: that of a letter is that of the letter with a mark."""
    picture = Image.new("L", (SIDE, SIDE))
    left = round((SIDE - font.getlength(character)) / 2)
    ImageDraw.Draw(picture).text((left, BASELINE), character, fill=255, font=font, anchor="ls")
    return np.asarray(picture)
