"""What a report shows of the glyphs: one picture of the first answers, and what was taken for what.

The first answers are a random sample, since characters are asked for in random order: nothing is picked by hand.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from colatent.evaluate.page import Picture, Prose, Section, Table
from colatent_gallery.glyphs.answers import Answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {"seen": "names in training", "heldout": "held-out combinations"}
ROWS = 9
"""Characters of each kind in the picture."""
COLUMN = 4.6
"""Width of a column of characters, in heights of a row."""
HEAD = 0.9
"""Height of what stands above them, in heights of a row."""
LINE = 0.15
"""Height of a line of a name, in heights of a row."""
MOST = 15
"""Errors of each kind that are listed."""


def sections(answers: Mapping[str, Answers], drawing: bytes, *, cap: float) -> list[Section]:
    """All that there is to be seen."""
    shared = (
        f"Characters whose pictures are identical count as one, by any of their names. Were only the very name right, "
        f"nobody could name more than {cap:.1%} of all pictures."
    )
    caption = (
        "Left of each name, the true picture, and the one that was drawn from the name; under it, the name that was "
        "written from the true picture, where it is another one. The first of a random sample."
    )
    shown = Section(title="Names and pictures", parts=[Prose(text=shared), Picture(data=drawing, caption=caption)])
    return [shown, *(_errors(TITLES[kind], some) for kind, some in answers.items())]


def picture(answers: Mapping[str, Answers]) -> bytes:
    """The first answers of each kind, side by side, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = COLUMN * len(answers), ROWS + HEAD
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    canvas, axis = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set(xlim=(0, width), ylim=(height, 0))
    for column, (kind, some) in enumerate(answers.items()):
        left = COLUMN * column + 0.1
        axis.text(left, 0.3, TITLES[kind], fontsize=13, weight="bold", va="center")
        for place, head in ((0.45, "true"), (1.43, "drawn")):
            axis.text(left + place, 0.7, head, fontsize=8.5, color="grey", ha="center", va="center")
        axis.text(left + 2.05, 0.7, "name, and the one written if another", fontsize=8.5, color="grey", va="center")
        for row in range(min(ROWS, len(some.numbers))):
            _draw_row(axis, some, row, left=left, top=row + HEAD)
    out = BytesIO()
    canvas.print_png(out)
    return out.getvalue()


def _draw_row(axis: Axes, answers: Answers, row: int, *, left: float, top: float) -> None:
    """One character: true picture, drawn picture, name, and what was written where that is wrong."""
    number = answers.numbers[row]
    for place, pixels in enumerate((answers.alphabet.pictures_NHW[number], answers.pictures[row])):
        start = left + 0.98 * place
        extent = (start, start + 0.9, top + 0.9, top)
        axis.imshow(1 - pixels, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest", aspect="auto")
    names = [(answers.alphabet.names[number], "black")]
    if not answers.named(1)[row]:
        names.append((answers.names[row][0], "firebrick"))
    said = [(textwrap.wrap(name, width=30, max_lines=3, placeholder=" ..."), colour) for name, colour in names]
    middle = top + 0.45 - LINE / 2 * sum(len(lines) for lines, _ in said)
    for lines, colour in said:
        middle += LINE / 2 * len(lines)
        axis.text(left + 2.05, middle, "\n".join(lines), fontsize=8.5, va="center", color=colour)
        middle += LINE / 2 * len(lines)


def _errors(title: str, answers: Answers) -> Section:
    """The first errors in both directions."""
    first = dict(reversed([*zip(answers.alphabet.classes_N.tolist(), answers.alphabet.names, strict=True)]))
    names = [answers.alphabet.names[number] for number in answers.numbers]
    drawn = [
        (name, first[int(nearest[0])])
        for name, right, nearest in zip(names, answers.drawn(1), answers.nearest, strict=True)
        if not right
    ]
    named = [
        (name, tries[0]) for name, right, tries in zip(names, answers.named(1), answers.names, strict=True) if not right
    ]
    tables = [_table("drawn from the name", "nearest to", drawn), _table("picture of", "was called", named)]
    return Section(title=f"Errors: {title}", parts=tables)


def _table(first: str, second: str, rows: Sequence[tuple[str, str]]) -> Table:
    return Table(head=(first, second), rows=rows[:MOST], caption=f"{len(rows)} in all; the first {MOST}")
