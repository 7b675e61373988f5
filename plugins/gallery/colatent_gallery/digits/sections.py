"""What a report shows of the digits: tables, pictures beside real ones, tones to be played, captions, and the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np

from colatent.evaluate.page import LONGEST, Cell, Confusion, Grid, Part, Picture, Prose, Section, Table, shown
from colatent.plugins.contract import Codec
from colatent_gallery.digits.directions import Field, Outcome, Real
from colatent_gallery.digits.judged import Judged
from colatent_gallery.digits.likeness import Likeness
from colatent_gallery.digits.twin import Cost
from colatent_gallery.scores import confusion

DIGITS = tuple(map(str, range(10)))
JUDGES: dict[Field, str] = {
    "text": "a reader of number words",
    "image": "a support vector machine fitted on the real training scans",
    "audio": "a Goertzel detector of the keypad's frequencies",
}
NAMES: dict[Field, str] = {"text": "captions", "image": "held-out scans", "audio": "fresh tones"}
NONE = "?"
"""How a judge's "no digit" is written."""


def sections(found: Judged, *, codecs: Mapping[Field, Codec]) -> list[Section]:
    """All that there is to be seen; `codecs` are those of the model, by field."""
    outcomes, real = found.outcomes, found.real
    shown_here = [Section(title="How it was judged", parts=[Prose(text=_how(found)), _judges(found)])]
    if (drawn := outcomes.get("text_to_image")) is not None:
        parts = [_drawn(drawn, real["image"], codecs["image"]), *_likeness(found.alike)]
        shown_here.append(Section(title="Scans from captions", parts=parts))
    if (said := outcomes.get("text_to_audio")) is not None:
        shown_here.append(Section(title="Tones from captions", parts=[_played(said, real["audio"], codecs["audio"])]))
    for name, title in (("image_to_text", "Captions of held-out scans"), ("audio_to_text", "Captions of fresh tones")):
        if (one := outcomes.get(name)) is not None:
            shown_here.append(Section(title=title, parts=[_captions(one, codecs[one.direction.given])]))
    if (rung := outcomes.get("image_to_audio")) is not None:
        shown_here.append(Section(title="Tones from held-out scans", parts=[_rung(rung, codecs)]))
    shown_here.append(Section(title="What was taken for what", parts=[*map(_confusion, outcomes.values())]))
    if found.cost is not None:
        shown_here.append(Section(title="What mixing costs", parts=_cost(found.cost)))
    return shown_here


def _how(found: Judged) -> str:
    count = len(found.real["text"].items)
    return (
        f"In each direction the model made one sample of each of {count} captions, scans or tones that it was not "
        "trained on; the first ones count, none was chosen."
    )


def _judges(found: Judged) -> Table:
    rights = ((field, some, found.rights[field]) for field, some in found.real.items())
    rows = [(JUDGES[field], NAMES[field], f"{right} of {len(some.items)}") for field, some, right in rights]
    caption = "What judges the samples shares nothing with the model. So often it is right about real things."
    return Table(head=("judge", "of real", "right"), rows=rows, caption=caption)


def by_digit(*lists: Sequence[int], most: Sequence[int]) -> list[tuple[int, list[list[int]]]]:
    """The digits that every one of several lists has, each with the places of its first items in each list: at most as
    many as `most` says, and as many for every digit."""
    places = {digit: [[n for n, each in enumerate(some) if each == digit] for some in lists] for digit in range(10)}
    found = {digit: some for digit, some in places.items() if all(some)}
    counts = [min(limit, *(len(some[n]) for some in found.values())) for n, limit in enumerate(most) if found]
    return [
        (digit, [where[:count] for where, count in zip(some, counts, strict=True)]) for digit, some in found.items()
    ]


def _made(one: Outcome, number: int, codec: Codec, *, label: str = "") -> Cell:
    """A sample, marked where it was judged to be another digit."""
    wrong = one.judged[number] != one.given.digits[number]
    return Cell(shown=shown(codec, one.made[number]), label=label, wrong=wrong)


def _drawn(one: Outcome, real: Real, codec: Codec) -> Grid:
    picked, rows = by_digit(real.digits, one.given.digits, most=(4, 8)), []
    for digit, (theirs, ours) in picked:
        cells = [Cell(shown=shown(codec, real.items[number])) for number in theirs]
        rows.append((str(digit), [*cells, *(_made(one, number, codec) for number in ours)]))
    head = [(name, len(some)) for _, both in picked[:1] for name, some in zip(("real", "generated"), both, strict=True)]
    caption = "Held-out scans, and the first samples of each digit; what the judge took for another digit is marked."
    return Grid(head=head, rows=rows, caption=caption)


def _played(one: Outcome, real: Real, codec: Codec) -> Grid:
    rows = []
    for digit, ((theirs,), (ours,)) in by_digit(real.digits, one.given.digits, most=(1, 1)):
        made = _made(one, ours, codec, label=f"“{one.given.items[ours]}”")
        rows.append((str(digit), [Cell(shown=shown(codec, real.items[theirs])), made]))
    caption = "One real tone and the first sample of each key."
    return Grid(head=(("real", 1), ("generated", 1)), rows=rows, caption=caption)


def _captions(one: Outcome, codec: Codec) -> Grid:
    rows = []
    for digit, (ours,) in by_digit(one.given.digits, most=(3,)):
        rows.append((str(digit), [_captioned(one, number, codec) for number in ours]))
    return Grid(rows=rows, caption="What was given, and under it what the model wrote.")


def _captioned(one: Outcome, number: int, codec: Codec) -> Cell:
    text, wrong = str(one.made[number]), one.judged[number] != one.given.digits[number]
    label = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return Cell(shown=shown(codec, one.given.items[number]), label=label, wrong=wrong)


def _rung(one: Outcome, codecs: Mapping[Field, Codec]) -> Grid:
    rows = []
    for digit, ((number,),) in by_digit(one.given.digits, most=(1,)):
        scan = Cell(shown=shown(codecs["image"], one.given.items[number]))
        rows.append((str(digit), [scan, _made(one, number, codecs["audio"])]))
    return Grid(head=(("scan", 1), ("generated", 1)), rows=rows)


def _confusion(one: Outcome) -> Confusion:
    direction = one.direction
    return Confusion(
        rows=DIGITS,
        columns=(*DIGITS, NONE),
        counts=confusion(one.given.digits, one.judged, classes=10),
        caption=f"{direction.given} to {direction.target}: asked for (rows) and judged (columns)",
    )


def _likeness(alike: Likeness | None) -> list[Part]:
    if alike is None:
        return []
    generated, real = np.median(alike.nearest_generated), np.median(alike.nearest_real)
    copies = Picture(
        data=_histogram(alike),
        caption="Distance to the nearest training scan. Copies would stand at 0; median "
        f"{generated:.2f} of samples, {real:.2f} of scans that nobody trained on.",
    )
    return [copies] if alike.overall is None else [_variety(alike.variety, alike.overall), copies]


def _variety(by_digit: Mapping[int, float], overall: float) -> Table:
    return Table(
        head=("digit", *map(str, by_digit), "all"),
        rows=[("variety", *(f"{ratio:.2f}" for ratio in by_digit.values()), f"{overall:.2f}")],
        caption="Mean distance of two samples of a digit over that of two real scans of it: 1 is as varied.",
    )


def _histogram(alike: Likeness) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.8), dpi=110, layout="constrained")
    canvas, axis = FigureCanvasAgg(figure), figure.subplots()
    both = {"samples": alike.nearest_generated, "held-out scans": alike.nearest_real}
    edges = np.linspace(0.0, max(float(some.max()) for some in both.values()) or 1.0, 31)
    for (label, some), colour in zip(both.items(), ("tab:blue", "grey"), strict=True):
        axis.hist(some, bins=edges, density=True, alpha=0.55, label=label, color=colour)  # type: ignore[arg-type]
    axis.set_xlabel("distance to the nearest training scan")
    axis.set_ylabel("density")
    axis.legend()
    out = BytesIO()
    canvas.print_png(out)
    return out.getvalue()


def _cost(cost: Cost) -> list[Part]:
    times = list(next(iter(cost.alone.values())))
    rows = []
    for source in cost.alone:
        rows.append((f"{source}, mixed", *(f"{cost.mixed[source][t]:.3f}" for t in times), ""))
        rows.append((f"{source}, alone", *(f"{cost.alone[source][t]:.3f}" for t in times), ""))
        shares = (cost.mixed[source][t] / cost.alone[source][t] for t in times)
        rows.append(("ratio", *(f"{share:.3f}" for share in shares), f"{cost.ratios[source]:.3f}"))
    head = ("flow loss at t =", *times, "of sums")
    return [Prose(text="Held-out flow loss of text, here and in a run on text alone."), Table(head=head, rows=rows)]
