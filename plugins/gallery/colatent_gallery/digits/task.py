"""The task `digits`: whether a digit survives the way from each modality to another, and whether its pictures are new.

What judges shares nothing with what is judged: a support vector machine fitted on the real training scans, a detector
that knows the keypad's frequencies, a reader of number words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from colatent.checkpoint.run import RunFolder
from colatent.errors import UserError
from colatent.evaluate.tasks import Progress, Verdict
from colatent_gallery.digits.captions import read_digit
from colatent_gallery.digits.classifier import ScanJudge
from colatent_gallery.digits.detector import detect
from colatent_gallery.digits.directions import DIRECTIONS, Direction, Field, Outcome, generate, real_items
from colatent_gallery.digits.judged import Judged
from colatent_gallery.digits.likeness import Likeness, likeness
from colatent_gallery.digits.scans import SIDE, load_scans
from colatent_gallery.digits.sections import sections
from colatent_gallery.digits.settings import DigitsConfig, DigitsTaskConfig, Material
from colatent_gallery.digits.twin import cost_of_mixing
from colatent_gallery.material import check_material
from colatent_gallery.scores import hits

if TYPE_CHECKING:
    from colatent.generate.model import Model

Judge = Callable[[Sequence[Any]], list[int | None]]


class DigitsTask:
    """See `DigitsTaskConfig`."""

    def __init__(self, config: DigitsTaskConfig) -> None:
        self.config = config
        self.training, self.test = load_scans(heldout=config.heldout, seed=config.seed)
        if config.samples > len(self.test.digits):
            what = f"is {config.samples}, and {len(self.test.digits)} scans are held out"
            raise UserError(what, where="task 'digits', samples", do="judge fewer samples, or hold out more")
        if config.twin is not None:  # to be told now, and not when training has ended
            RunFolder.open(config.twin)
        self._scans = ScanJudge(self.training)

    def judge(self, model: Model, *, run: RunFolder | None, seed: int, progress: Progress) -> Verdict:
        """See `colatent.evaluate.tasks.Task.judge`."""
        streams = self._streams(model)
        if run is not None:
            check_material(run, self.config, name="digits", dataset=DigitsConfig, keys=Material.model_fields)
        cost = None if self.config.twin is None else cost_of_mixing(run, self.config.twin)
        real, judges = real_items(self.config, self.test, seed=seed), self._judges()
        outcomes = {}
        for each in _directions(streams):
            made = generate(model, each, real[each.given].items, streams=streams, seed=seed, progress=progress)
            judged = judges[each.target](made)
            outcomes[each.name] = Outcome(direction=each, given=real[each.given], made=made, judged=judged)
        found = Judged(
            outcomes=outcomes,
            real=real,
            rights={field: hits(some.digits, judges[field](some.items)) for field, some in real.items()},
            alike=self._likeness(outcomes),
            cost=cost,
        )
        return Verdict(
            figures=found.figures(),
            bounds=found.bounds(),
            goals={each.name: each.goal for each in _directions(streams)},
            sections=sections(found, codecs={field: model.codecs[name] for field, name in streams.items()}),
        )

    def _streams(self, model: Model) -> dict[Field, str]:
        """The model's streams by the field that they hold; there must be two that a direction joins."""
        named: dict[Field, str] = {"text": self.config.text, "image": self.config.image, "audio": self.config.audio}
        found = {field: name for field, name in named.items() if name in model.codecs}
        if not _directions(found):
            what = f"this model (streams: {', '.join(model.codecs)}) has no two of {', '.join(named.values())}"
            raise UserError(what, where="task 'digits'", do="name its streams with text=, image= and audio=")
        return found

    def _judges(self) -> dict[Field, Judge]:
        hear = partial(detect, rate=self.config.sample_rate)
        return {
            "text": lambda items: [read_digit(str(item)) for item in items],
            "image": lambda items: [*self._scans.read(_pictures(items))],
            "audio": lambda items: [hear(np.asarray(item)) for item in items],
        }

    def _likeness(self, outcomes: Mapping[str, Outcome]) -> Likeness | None:
        """Of generated pictures to real ones, where there are any."""
        drawn = outcomes.get("text_to_image")
        if drawn is None:
            return None
        return likeness(_pictures(drawn.made), drawn.given.digits, training=self.training, test=self.test)


def _directions(fields: Collection[Field]) -> list[Direction]:
    """The directions between these fields."""
    return [each for each in DIRECTIONS if {each.given, each.target} <= set(fields)]


def _pictures(items: Sequence[Any]) -> np.ndarray:
    """Pictures as one array (count, 1, 8, 8)."""
    for item in items:
        if np.shape(item) != (1, SIDE, SIDE):
            what = f"a picture has the shape {np.shape(item)}, and scans have (1, {SIDE}, {SIDE})"
            raise UserError(what, where="task 'digits'", do="set bands, height and width of the image codec to these")
    return np.stack([np.asarray(item, dtype=np.float32) for item in items])
