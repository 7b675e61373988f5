"""The text plugin's three sources of samples: files, and the two streams of the demo.

All give windows of characters, long enough that the core can cut them to its own length in latents whatever the
tokenizer. A training window starts anywhere, drawn from the generator that is handed in; a held-out sample is a
function of its index alone, so that two evaluations see the same text. A window that breaks off has `ends=False`: an
end symbol stands only where a document really ends.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from colatent.config.schema import Settings
from colatent.data.dataset import Sample, Split
from colatent.errors import UserError
from colatent_text import counting, names
from colatent_text.items import Text, decoded

SEPARATOR = re.compile(r"[\s,]")
"""What stands between words, token ids among them."""


class TextFilesConfig(Settings):
    """A UTF-8 file, or all text files of a folder."""

    path: str = Field(min_length=1)
    """A file, or a folder that is searched with its subfolders."""
    window: PositiveInt = 2048
    """Characters of a sample, at most."""
    heldout: float = Field(default=0.05, gt=0.0, le=0.5)
    """Share of the text that is held out: the last part of each long document, and of all short ones in a row."""
    cut: Literal["characters", "words"] = "characters"
    """Where windows begin and end: anywhere, or between words (at white space or a comma), as token ids need it."""
    pattern: tuple[str, ...] = ("*.txt", "*.md")
    """Names of the files that are read from a folder."""
    min_chars: int = Field(default=16, ge=2)
    """A text with fewer characters in all is refused."""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A stretch of one document, whether it reaches the document's end, and whether it may be cut only between words
    (a window is then as much longer)."""

    text: str
    ends: bool
    words: bool

    def window(self, start: int, chars: int) -> Sample:
        stop = start + chars
        if self.words:
            start, stop = begin_of_word(self.text, start), end_of_word(self.text, stop)
        return {"text": Text(text=self.text[start:stop], ends=self.ends and stop >= len(self.text))}


class TextFiles:
    """Windows of documents, each document one file."""

    def __init__(self, config: TextFilesConfig, *, split: Split) -> None:
        self._window, self._split = config.window, split
        documents = _read_documents(Path(config.path), config.pattern)
        if (chars := sum(map(len, documents))) < config.min_chars:
            what = f"{chars} characters of text, fewer than min_chars={config.min_chars}"
            raise UserError(what, where=config.path, do="give a longer text")
        words = config.cut == "words"
        train, heldout = _hold_out(documents, config.heldout, window=config.window, words=words)
        self._pieces = train if split == "train" else heldout
        self._shares = np.cumsum([len(piece.text) for piece in self._pieces])
        self._starts = [(p, at) for p in self._pieces for at in range(0, len(p.text), config.window)]

    def __len__(self) -> int:
        return len(self._starts)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if self._split == "heldout":
            piece, at = self._starts[index]
            return piece.window(at, self._window)
        chosen = np.searchsorted(self._shares, rng.integers(self._shares[-1]), side="right")
        piece = self._pieces[int(chosen)]
        # From before the first character: a document's first characters are seen as often as all others.
        start = max(0, int(rng.integers(1 - self._window, len(piece.text))))
        return piece.window(start, uneven(self._window, rng))


class UnicodeNamesConfig(Settings):
    """Lists of Unicode character names, with "; " between them."""

    heldout: PositiveInt = 2000
    """Names that are kept out of training."""
    seed: NonNegativeInt = 0
    """Seed of the permutation that picks them."""
    window: int = Field(default=2048, ge=2)
    """Characters of a sample."""
    whole: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of training windows that begin with a whole name; the others begin at some later character of it."""


class UnicodeNames:
    """Windows of endless lists of names drawn at random; held out: the list of held-out names, from each name on."""

    def __init__(self, config: UnicodeNamesConfig, *, split: Split) -> None:
        self._config, self._split = config, split
        train, heldout = names.split_names(config.seed, config.heldout)
        self._names = train if split == "train" else heldout

    def __len__(self) -> int:
        return len(self._names)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if self._split == "heldout":
            return _window(_rotated(self._names, index), self._config.window)
        drawn = (self._names[rng.integers(len(self._names))] + names.SEPARATOR for _ in itertools.count())
        return _window(drawn, self._config.window, rng=rng, whole=self._config.whole)


class CountingConfig(Settings):
    """Counting in English words, upwards from random numbers."""

    top: int = Field(default=999, ge=199, le=9999)
    """Largest number."""
    heldout_stretches: PositiveInt = 5
    """Stretches of the number range that no training series enters; none lies below 100."""
    stretch: int = Field(default=20, ge=2)
    """Numbers in a held-out stretch."""
    seed: NonNegativeInt = 0
    """Seed of the choice of stretches."""
    series: tuple[PositiveInt, PositiveInt] = (100, 200)
    """Fewest and most numbers of a series, where no held-out stretch stops it before. Long ones, so that the end of a
    series, which nobody can foresee, is rare."""
    window: int = Field(default=2048, ge=2)
    """Characters of a sample."""
    whole: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of training windows that begin with a whole number; the others begin at some later character."""

    @model_validator(mode="after")
    def _ordered(self) -> CountingConfig:
        if self.series[0] > self.series[1]:
            raise ValueError(f"series {self.series} is fewest before most")
        return self

    def ranges(self) -> counting.Ranges:
        """What of the number range is trained and what is held out."""
        return counting.split_range(self.top, stretches=self.heldout_stretches, length=self.stretch, seed=self.seed)


class Counting:
    """Windows of series of trained numbers; held out: from each held-out number to its stretch's end, and the next."""

    def __init__(self, config: CountingConfig, *, split: Split) -> None:
        self._config, self._split = config, split
        ranges = config.ranges()
        self._runs = ranges.trained if split == "train" else ranges.heldout

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if self._split == "heldout":
            return _window(self._from(index), self._config.window)
        drawn = counting.random_series(self._runs, rng, lengths=self._config.series)
        return _window(drawn, self._config.window, rng=rng, whole=self._config.whole)

    def _from(self, index: int) -> Iterator[str]:
        """The runs as series, in a circle, starting with number `index` of them all."""
        at = next(r for r, run in enumerate(self._runs) if index < sum(map(len, self._runs[: r + 1])))
        offset = index - sum(map(len, self._runs[:at]))
        first = self._runs[at][offset:]
        rest = itertools.cycle(self._runs[at + 1 :] + self._runs[: at + 1])
        return (counting.series(run) + counting.END for run in itertools.chain([first], rest))


def _window(parts: Iterable[str], chars: int, *, rng: np.random.Generator | None = None, whole: float = 1.0) -> Sample:
    """The first `chars` characters of endless `parts`; a share of 1 - `whole` begins inside the first part."""
    parts = iter(parts)
    first = next(parts)
    chars = chars if rng is None else uneven(chars, rng)
    if rng is not None and rng.random() >= whole:
        first = first[int(rng.integers(1, len(first))) :]
    taken = [first]
    missing = chars - len(first)
    while missing > 0:
        taken.append(next(parts))
        missing -= len(taken[-1])
    return {"text": Text(text="".join(taken)[:chars], ends=False)}


def uneven(chars: int, rng: np.random.Generator) -> int:
    """A window's length, up to an eighth less: were all as long, so would be the padding before bytes that share a
    latent, and a prompt of another length would be new."""
    return chars - int(rng.integers(chars // 8 + 1))


def _rotated(lines: tuple[str, ...], start: int) -> Iterator[str]:
    """`lines` in a circle, beginning with number `start`."""
    return (lines[at % len(lines)] + names.SEPARATOR for at in itertools.count(start))


def begin_of_word(text: str, place: int) -> int:
    """Where the word begins in which `place` lies."""
    while 0 < place < len(text) and not SEPARATOR.match(text, place - 1):
        place -= 1
    return place


def end_of_word(text: str, place: int) -> int:
    """Where the word ends in which `place` lies."""
    found = SEPARATOR.search(text, max(0, place))
    return found.start() if found else len(text)


def _hold_out(documents: list[str], share: float, *, window: int, words: bool) -> tuple[list[_Piece], list[_Piece]]:
    """(train, heldout). A document whose held-out share fills a window gives its tail; all shorter ones are put in a
    row whose tail is held out, so that most of them stay whole and training sees how documents end."""
    train: list[_Piece] = []
    heldout: list[_Piece] = []
    long = [document for document in documents if len(document) * share >= window]
    short = [document for document in documents if len(document) * share < window]
    for row in [*([document] for document in long), short]:
        total = sum(map(len, row))
        left = total - max(1, round(total * share))
        for document in row:
            cut = min(max(left, 0), len(document))
            if words:
                cut = begin_of_word(document, cut)
            left -= len(document)
            train.append(_Piece(text=document[:cut], ends=cut == len(document), words=words))
            heldout.append(_Piece(text=document[cut:], ends=True, words=words))
    return [piece for piece in train if piece.text], [piece for piece in heldout if piece.text]


def _read_documents(path: Path, pattern: tuple[str, ...]) -> list[str]:
    """The texts at `path`, without empty ones, in the order of their names."""
    if not path.exists():
        raise UserError("no such file or folder", where=str(path), do="check the path")
    files = [path]
    if path.is_dir():
        wanted = (file for file in path.rglob("*") if any(fnmatch(file.name, glob) for glob in pattern))
        files = sorted((file for file in wanted if file.is_file()), key=Path.as_posix)
    elif not path.is_file():
        raise UserError("is neither a file nor a folder", where=str(path), do="give a text file or a folder of them")
    if not files:
        what = f"no file matches {', '.join(pattern) or 'an empty pattern'}"
        raise UserError(what, where=str(path), do="set pattern to the names of your text files")
    documents = [text for text in map(_read_text, files) if text]
    if not documents:
        raise UserError("the text is empty", where=str(path), do="give a text to train on")
    return documents


def _read_text(file: Path) -> str:
    try:
        return decoded(file.read_bytes(), name=str(file))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(file)) from error
