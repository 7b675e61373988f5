"""What a page of a report is made of. How it becomes HTML is `colatent.evaluate.html`.

Parts are data: a task says what is to be seen, never how, so that every report looks alike and nothing in it can be
taken for markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from colatent.plugins.contract import Codec
from colatent.plugins.items import Showable, Shown
from colatent.plugins.latents import Item

LONGEST = 80
"""Characters of an item that no codec shows."""
REACHED, MISSED = "reached", "missed"
"""Cells of a table that say how a goal fared, and are coloured so."""


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under a head; the first cell of a row names it, numbers are written as they are to be read."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure that is drawn already: its bytes, and what it shows."""

    data: bytes
    caption: str
    media: str = "image/png"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One item of a grid, with a word under it; `wrong` marks it."""

    shown: Shown
    label: str = ""
    wrong: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Items in rows, each with its name.

    head  titles over the columns, each with how many it stands over
    size  width of a picture on the page, in pixels
    """

    rows: Sequence[tuple[str, Sequence[Cell]]]
    head: Sequence[tuple[str, int]] = ()
    caption: str = ""
    size: int = 48


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often what should be a row was judged to be a column."""

    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    caption: str = ""

    def __post_init__(self) -> None:
        assert len(self.rows) == len(self.counts)
        assert all(len(row) == len(self.columns) for row in self.counts)


@dataclass(frozen=True, kw_only=True)
class Verbatim:
    """A text as it stands, folded away under its title."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A named line of a chart, (x, y) from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over one pair of axes.

    x         what the horizontal axis counts
    log       its values may stand on a logarithmic axis, where that shows more
    ordered   the lines have an order of their own (levels of noise), which their colours show
    smoothed  long lines are averaged, with their single values faint behind
    """

    title: str
    lines: Sequence[Line]
    x: str = "step"
    log: bool = False
    ordered: bool = False
    smoothed: bool = False


@dataclass(frozen=True, kw_only=True)
class Charts:
    """Charts side by side, as many as there is room for."""

    charts: Sequence[Chart]
    caption: str = ""


Part = Prose | Table | Picture | Grid | Confusion | Verbatim | Charts


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled stretch of a page."""

    title: str
    parts: Sequence[Part]


def shown(codec: Codec, item: Item) -> Shown:
    """An item as a page takes it: as its codec shows it, or as Python writes it (its beginning) where that cannot."""
    if isinstance(codec, Showable):
        return codec.show(item)
    text = item if isinstance(item, str) else " ".join(repr(item).split())[:LONGEST]
    return Shown(media="text/plain", data=text.encode())
