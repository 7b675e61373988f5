"""The Unicode character names that every Python carries: about 30,000 pieces of narrow, real, checkable English.

Two kinds of name are left out, since nothing can be learnt from them. Names that the standard derives by rule from the
code point or from a table of syllables (CJK ideographs, Nushu, Khitan, Tangut, Hangul), and rows of a catalogue, where
only a number tells one sign from the next (EGYPTIAN HIEROGLYPH A001, VARIATION SELECTOR-17, BRAILLE PATTERN DOTS-123).
A newer Python knows newer characters, so counts and the split depend on `unicodedata.unidata_version`.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Iterable

import numpy as np

from colatent.errors import UserError

SEPARATOR = "; "
"""Between the names of a list; no name holds a semicolon. Not a line break: so that a word is the same token at the
beginning of a name as inside one, with a space before it."""

_DERIVED = (
    "CJK UNIFIED IDEOGRAPH-",
    "CJK COMPATIBILITY IDEOGRAPH-",
    "HANGUL SYLLABLE ",
    "KHITAN SMALL SCRIPT CHARACTER-",
    "NUSHU CHARACTER-",
    "TANGUT IDEOGRAPH-",
)
_CATALOGUES = (
    "ANATOLIAN HIEROGLYPH ",
    "BLOCK OCTANT-",
    "BLOCK SEXTANT-",
    "BRAILLE PATTERN DOTS-",
    "CUNEIFORM SIGN LAK-",
    "CYPRO-MINOAN SIGN CM",
    "EGYPTIAN HIEROGLYPH ",
    "EGYPTIAN HIEROGLYPH-",
    "LINEAR A SIGN ",
    "TANGUT COMPONENT-",
    "VARIATION SELECTOR-",
)
_NUMBERED = re.compile(rf"(?:{'|'.join(map(re.escape, _CATALOGUES))})\S*\d\S*")


@functools.cache
def load_names() -> tuple[str, ...]:
    """All names that are not derived by rule or numbered, in code point order, each once."""
    names = (unicodedata.name(chr(point), "") for point in range(sys.maxunicode + 1))
    return tuple(n for n in names if n and not n.startswith(_DERIVED) and not _NUMBERED.fullmatch(n))


@functools.cache
def split_names(seed: int, heldout: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(train, heldout): `heldout` names of a seeded permutation are kept out of training."""
    names = load_names()
    if not 0 < heldout < len(names):
        do = f"hold out 1 to {len(names) - 1}"
        raise UserError(f"cannot hold out {heldout} of {len(names)} names", where="heldout", do=do)
    order = np.random.default_rng(seed).permutation(len(names))
    shuffled = tuple(names[i] for i in order)
    return shuffled[heldout:], shuffled[:heldout]


def vocabulary(names: Iterable[str]) -> frozenset[str]:
    """The words of `names`: what stands between spaces, hyphens included."""
    return frozenset(word for name in names for word in name.split())
