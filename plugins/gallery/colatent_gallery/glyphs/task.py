"""The task `glyphs`: whether a model draws what a name says and names what a picture shows, seen or held out.

What judges is the true pictures and the true names themselves. Of a held-out combination the model has seen letter and
mark, each with others, and neither the name nor the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colatent.checkpoint.run import RunFolder
from colatent.checkpoint.storage import atomic_write_bytes
from colatent.errors import UserError
from colatent.evaluate.intervals import wilson
from colatent.evaluate.tasks import Progress, Verdict
from colatent_gallery.glyphs.answers import NEAREST, Answers, ask
from colatent_gallery.glyphs.faces import load_alphabet
from colatent_gallery.glyphs.judge import strict_cap
from colatent_gallery.glyphs.sections import picture, sections
from colatent_gallery.glyphs.settings import Combinations, GlyphsConfig, GlyphsTaskConfig
from colatent_gallery.glyphs.split import split_glyphs
from colatent_gallery.material import check_material

if TYPE_CHECKING:
    from colatent.generate.model import Model

GOALS = {"seen": 0.9, "heldout": 0.6}
"""The least top 1 that is aimed at, in both directions."""
PICTURE = "glyphs.png"
"""Among the run's samples: the first answers as one picture."""


class GlyphsTask:
    """See `GlyphsTaskConfig`."""

    def __init__(self, config: GlyphsTaskConfig) -> None:
        self.config, self.alphabet = config, load_alphabet()
        train, heldout = split_glyphs(config.heldout, config.seed)
        self.asked = {"seen": _drawn(train, config.seen), "heldout": _drawn(heldout, len(heldout))}

    def judge(self, model: Model, *, run: RunFolder | None, seed: int, progress: Progress) -> Verdict:
        """See `colatent.evaluate.tasks.Task.judge`. The picture is also written among the samples of the run."""
        if not {self.config.text, self.config.image} <= model.codecs.keys():
            what = f"this model (streams: {', '.join(model.codecs)}) lacks {self.config.text} or {self.config.image}"
            raise UserError(what, where="task 'glyphs'", do="name its streams with text= and image=")
        if run is not None:
            check_material(run, self.config, name="glyphs", dataset=GlyphsConfig, keys=Combinations.model_fields)
        answers = {
            kind: ask(model, self.alphabet, numbers, config=self.config, seed=seed, kind=kind, progress=progress)
            for kind, numbers in self.asked.items()
        }
        rights = {name: right for kind, some in answers.items() for name, right in _rights(kind, some).items()}
        drawing = picture(answers)
        if run is not None:
            atomic_write_bytes(run.samples / PICTURE, drawing)
        names, classes = len(self.alphabet.names), int(self.alphabet.classes_N.max()) + 1
        cap = strict_cap(self.alphabet)
        return Verdict(
            figures={name: float(np.mean(right)) for name, right in rights.items()}
            | {"names": names, "pictures": classes, "very_name_cap": cap},
            bounds={name: wilson(sum(right), len(right)) for name, right in rights.items()},
            goals={f"{way}_{kind}_top1": goal for way in WAYS for kind, goal in GOALS.items()},
            sections=sections(answers, drawing, cap=cap),
        )


WAYS = ("name_to_glyph", "glyph_to_name")


def _rights(kind: str, answers: Answers) -> dict[str, list[bool]]:
    """What is right, by the name of its figure."""
    found: dict[str, list[bool]] = {}
    for way, told in zip(WAYS, (answers.drawn, answers.named), strict=True):
        found |= {f"{way}_{kind}_top1": told(1), f"{way}_{kind}_top5": told(NEAREST)}
    return found


def _drawn(numbers: tuple[int, ...], count: int) -> list[int]:
    """`count` of them (or all) in an order that is random and always the same, so that the first ones are a sample."""
    return np.random.default_rng(0).permutation(numbers)[:count].tolist()
