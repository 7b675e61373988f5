"""What the demo's report counts, as pure functions of strings: is a continuation right, is a name a name.

Generated text breaks off where its budget ends, and a list of names may begin in the middle of one. Broken words and
names at such an edge are not judged: they would be held against the model although nobody can say what they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from colatent.errors import UserError
from colatent_text import counting
from colatent_text.names import SEPARATOR

_WORD = re.compile(r"[^\s;]+")


@dataclass(frozen=True, kw_only=True)
class CountingPrompt:
    """A prompt inside a series, and how the same series goes on.

    prompt  starts with a whole number, ends between any two tokens
    truth   what follows, to the end of the same run of numbers
    tokens  length of the prompt in tokens
    """

    prompt: str
    truth: str
    tokens: int


def counting_prompts(
    n: int,
    *,
    seed: int,
    runs: Sequence[range],
    encode: Callable[[str], Sequence[int]] = str.encode,
    block: int = 1,
    chars: tuple[int, int] = (128, 256),
    margin: int = 64,
) -> list[CountingPrompt]:
    """`n` prompts of about `chars` (fewest, most) characters, each followed by `margin` or more of its own series.

    runs    the numbers to draw from, `Ranges.trained` or `Ranges.heldout`
    encode  the tokenizer's; prompt i has i modulo `block` tokens modulo `block`, so that all residues are covered
    """
    rests = counting.continuations(runs, chars=chars[1] + margin)
    if not rests:
        what = f"no run of numbers is as long as a prompt of {chars[1]} characters and {margin} to check"
        raise UserError(what, where="stretch", do="hold out longer stretches or ask for shorter prompts")
    rng = np.random.default_rng(seed)
    found: list[CountingPrompt] = []
    misses = 0
    while len(found) < n:
        text = counting.series(rests[rng.integers(len(rests))])
        longest = int(rng.integers(chars[0], chars[1] + 1))
        cuts = _cuts(text, range(longest, chars[0] // 2, -1), encode)
        prompt = next((cut for cut in cuts if cut.tokens % block == len(found) % block), None)
        if prompt is not None:
            found.append(prompt)
            misses = 0
        # A tokenizer may skip a residue for one text (a cut splits a token in two): another text is drawn.
        elif (misses := misses + 1) == 20:
            what = f"prompts of {chars[0]} to {chars[1]} characters do not end everywhere in a block of {block} tokens"
            raise UserError(what, where="chars", do="ask for longer prompts")
    return found


def _cuts(text: str, places: Iterable[int], encode: Callable[[str], Sequence[int]]) -> Iterator[CountingPrompt]:
    """The text cut at those places that lie between two of its tokens: a prompt that splits a token ("forty-o") is
    another sequence of tokens than any text that goes on from it."""
    whole = list(encode(text))
    for at in places:
        ids = list(encode(text[:at]))
        if ids == whole[: len(ids)]:
            yield CountingPrompt(prompt=text[:at], truth=text[at:], tokens=len(ids))


def counting_exact(generated: str, truth: str, *, count: int = 32) -> bool:
    """Whether the first `count` bytes of what was generated after the prompt are those of the truth."""
    expected = truth.encode("utf-8")[:count]
    assert len(expected) == count
    return generated.encode("utf-8")[:count] == expected


@dataclass(frozen=True, kw_only=True)
class NameScores:
    """Shares, 0 to 1, over all samples together; 0 where there was nothing to judge.

    words, names   how many whole words and whole names were judged
    known_words    of the words: in the vocabulary
    real           of the names: a Unicode name, trained or held out
    real_heldout   of the real names: held out
    distinct       of the samples: different texts
    """

    words: int
    names: int
    known_words: float
    real: float
    real_heldout: float
    distinct: float


def score_names(
    samples: Sequence[str],
    *,
    train: Collection[str],
    heldout: Collection[str],
    vocabulary: Collection[str],
    whole: bool = False,
) -> NameScores:
    """Judge generated lists of names. `whole`: samples begin with a whole name (after a separator)."""
    train, heldout, vocabulary = frozenset(train), frozenset(heldout), frozenset(vocabulary)
    words = [word for sample in samples for word in complete_words(sample, whole=whole)]
    names = [name for sample in samples for name in complete_names(sample, whole=whole)]
    real = [name for name in names if name in train or name in heldout]
    return NameScores(
        words=len(words),
        names=len(names),
        known_words=_share(sum(word in vocabulary for word in words), len(words)),
        real=_share(len(real), len(names)),
        real_heldout=_share(sum(name in heldout for name in real), len(real)),
        distinct=_share(len(set(samples)), len(samples)),
    )


def complete_names(text: str, *, whole: bool = False) -> list[str]:
    """The names in a list that are there from first to last letter; `whole`: the first one is, if its end is."""
    listed = text.split(SEPARATOR.strip())[:-1]
    return [name.strip() for name in (listed if whole else listed[1:]) if name.strip()]


def complete_words(text: str, *, whole: bool = False) -> list[str]:
    """The words of `text`, without one that its end breaks off and, unless `whole`, one that its start does."""
    words = _WORD.findall(text)
    if words and _WORD.fullmatch(text[-1]):
        words.pop()
    if words and not whole and _WORD.fullmatch(text[0]):
        words.pop(0)
    return words


def _share(part: int, total: int) -> float:
    return part / total if total else 0.0
