"""What a report shows of spoken digits: recordings, what the codec and the model make of them, and confusions."""

from __future__ import annotations

import numpy as np

from colatent.evaluate.page import LONGEST, Cell, Confusion, Grid, Prose, Section, Table, shown
from colatent.plugins.contract import Codec
from colatent.plugins.items import Shown
from colatent_gallery.digits.sections import DIGITS, NONE, by_digit
from colatent_gallery.scores import confusion
from colatent_gallery.speech.judged import Heard, Judged

VOICE = "a support vector machine over cepstra, fitted on the real training recordings"
KINDS = {
    "real": ("held-out recordings", VOICE),
    "reconstruction": ("the same after the codec", VOICE),
    "text_to_audio": ("sounds made of captions", VOICE),
    "audio_to_text": ("captions made of held-out recordings", "a reader of number words"),
}


def sections(found: Judged, *, codec: Codec) -> list[Section]:
    """All that there is to be seen and heard; `codec` is that of the sounds."""
    return [
        Section(title="How it was judged", parts=[Prose(text=_how(found)), _judges(found)]),
        Section(title="Recordings, and what the codec makes of them", parts=[_rebuilt(found.reconstruction, codec)]),
        Section(title="Speech from captions", parts=[_said(found.text_to_audio, codec)]),
        Section(title="Captions of held-out recordings", parts=[_written(found.audio_to_text, codec)]),
        Section(
            title="What was taken for what", parts=[_confusion(name, some) for name, some in found.named().items()]
        ),
    ]


def _how(found: Judged) -> str:
    return (
        f"The model made one sound of each of {len(found.text_to_audio.digits)} captions and one caption of each of "
        f"{len(found.audio_to_text.digits)} recordings on which nothing was trained or fitted; the first ones count, "
        "none was chosen."
    )


def _judges(found: Judged) -> Table:
    named = found.named()
    rows = [(what, judge, f"{named[kind].right} of {len(named[kind].digits)}") for kind, (what, judge) in KINDS.items()]
    caption = "What judges shares nothing with the model. Real recordings show how far it can be trusted."
    return Table(head=("what", "judge", "right"), rows=rows, caption=caption)


def _cell(one: Heard, number: int, codec: Codec, *, label: str = "") -> Cell:
    """What was made, marked where it was judged to be another digit."""
    wrong = one.judged[number] != one.digits[number]
    return Cell(shown=_played(one.made[number], codec), label=label, wrong=wrong)


def _played(sound: np.ndarray, codec: Codec) -> Shown:
    """A sound to be played; a model may end one before it begins, and no codec shows that."""
    return shown(codec, sound) if len(sound) else Shown(media="text/plain", data=b"no sound")


def _rebuilt(one: Heard, codec: Codec) -> Grid:
    rows = []
    for digit, (places,) in by_digit(one.digits, most=(2,)):
        pairs = [(Cell(shown=shown(codec, one.given[number])), _cell(one, number, codec)) for number in places]
        rows.append((str(digit), [cell for pair in pairs for cell in pair]))
    head = [(name, 1) for _ in range(len(rows[0][1]) // 2) for name in ("real", "reconstructed")] if rows else []
    return Grid(rows=rows, head=head, caption="The first held-out recordings of each digit.")


def _said(one: Heard, codec: Codec) -> Grid:
    rows = []
    for digit, (places,) in by_digit(one.digits, most=(3,)):
        rows.append((str(digit), [_cell(one, number, codec, label=f"“{one.given[number]}”") for number in places]))
    caption = "The first sounds of each digit; what the judge took for another one is marked."
    return Grid(rows=rows, caption=caption)


def _written(one: Heard, codec: Codec) -> Grid:
    rows = []
    for digit, (places,) in by_digit(one.digits, most=(3,)):
        rows.append((str(digit), [_captioned(one, number, codec) for number in places]))
    return Grid(rows=rows, caption="What was given, and under it what the model wrote.")


def _captioned(one: Heard, number: int, codec: Codec) -> Cell:
    text, wrong = str(one.made[number]), one.judged[number] != one.digits[number]
    label = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return Cell(shown=shown(codec, one.given[number]), label=label, wrong=wrong)


def _confusion(name: str, one: Heard) -> Confusion:
    return Confusion(
        rows=DIGITS,
        columns=(*DIGITS, NONE),
        counts=confusion(one.digits, one.judged, classes=10),
        caption=f"{KINDS[name][0]}: what they should be (rows) and were judged to be (columns)",
    )
