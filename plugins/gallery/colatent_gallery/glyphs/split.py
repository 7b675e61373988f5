"""Which names are held out: combinations of a letter and a mark that are new, of letters and marks that are not.

A combination is a letter's name with " WITH " in it. One can be held out if no other name has the same picture, if its
letter stays in training (plain or with another mark), and if its mark stays there too (on another letter): then nothing
of it is new but the combination. Letters differ by script and case, and "CIRCUMFLEX AND ACUTE" is a mark of its own.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from colatent.errors import UserError
from colatent_gallery.glyphs.faces import load_alphabet

SCRIPTS = ("LATIN ", "GREEK ", "CYRILLIC ")
"""How names of letters begin."""


def parts(name: str) -> tuple[str, str]:
    """(letter, mark) of a combination; (name, "") of every other name."""
    letter, _, mark = name.partition(" WITH ")
    return (letter, mark) if name.startswith(SCRIPTS) else (name, "")


@functools.cache
def split_glyphs(share: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(train, heldout): numbers of characters; `share` of all combinations is held out, as a seeded permutation
    comes upon those that can be."""
    alphabet = load_alphabet()
    wanted = round(share * sum(bool(parts(name)[1]) for name in alphabet.names))
    sharing = Counter(alphabet.classes_N.tolist())
    single = [number for number, of in enumerate(alphabet.classes_N.tolist()) if sharing[of] == 1]
    heldout = _choose(alphabet.names, np.random.default_rng(seed).permutation(single).tolist(), wanted)
    if len(heldout) < wanted or not wanted:
        most = "more" if not wanted else "fewer"
        what = f"cannot hold out {wanted} combinations ({len(heldout)} have letter and mark left in training)"
        raise UserError(what, where="heldout", do=f"hold out {most}")
    kept = set(range(len(alphabet.names))) - set(heldout)
    return tuple(sorted(kept)), tuple(sorted(heldout))


def _choose(names: Sequence[str], candidates: Iterable[int], wanted: int) -> list[int]:
    """The first `wanted` candidates that leave their letter and their mark in training."""
    letters = Counter(parts(name)[0] for name in names)
    marks = Counter(parts(name)[1] for name in names)
    chosen: list[int] = []
    for number in candidates:
        letter, mark = parts(names[number])
        if mark and letters[letter] > 1 and marks[mark] > 1 and len(chosen) < wanted:
            chosen.append(number)
            letters[letter] -= 1
            marks[mark] -= 1
    return chosen
