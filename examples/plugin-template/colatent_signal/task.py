"""Asks a model for waves by their captions and for captions of waves, and judges both by the phase. Yours: your judge.

A judge shares nothing with the model: it measures, parses, or is fitted on real data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colatent.errors import UserError
from colatent.evaluate.intervals import wilson
from colatent.evaluate.page import Cell, Grid, Section, shown
from colatent.evaluate.tasks import Progress, Verdict
from colatent.generate.requests import Given
from colatent_signal.config import PaceSettings, WavesSettings
from colatent_signal.data import PACES, Waves

if TYPE_CHECKING:
    from colatent.checkpoint.run import RunFolder
    from colatent.generate.model import Model


class Pace:
    """See `PaceSettings`."""

    def __init__(self, config: PaceSettings) -> None:
        # Yours: load or fit here what judges, so that what is missing is told before training and not after it.
        self._config = config

    def judge(self, model: Model, *, run: RunFolder | None, seed: int, progress: Progress) -> Verdict:
        """Figures for programs, and what a page shows. All randomness hangs on `seed`."""
        text, waves, count = self._config.text, self._config.waves, self._config.samples
        if missing := {text, waves} - model.codecs.keys():
            do = "judge a run of mixed.yaml, or set text and waves"
            raise UserError(f"the model has no stream {min(missing)!r}", do=do)

        captions = [f"a {list(PACES)[number % len(PACES)]} wave" for number in range(count)]
        drawn = model.generate_many([[Given(text, caption)] for caption in captions], target=waves, seed=seed)
        items = [samples[0].item for samples in drawn]
        progress("waves for captions", count, count)

        heldout = Waves(WavesSettings(), split="heldout")
        real = [heldout.sample(number, np.random.default_rng([seed, number])) for number in range(count)]
        told = model.generate_many([[Given(waves, one["signal"])] for one in real], target=text, seed=seed)
        progress("captions for waves", count, count)

        right = [caption_of(item) == caption for item, caption in zip(items, captions, strict=True)]
        said = [samples[0].item == one["text"] for samples, one in zip(told, real, strict=True)]
        sure = [caption_of(one["signal"]) == one["text"] for one in real]
        cells = [
            Cell(shown=shown(model.codecs[waves], item), label=caption, wrong=not fits)
            for item, caption, fits in zip(items, captions, right, strict=True)
        ]
        return Verdict(
            figures={
                "text_to_waves": sum(right) / count,
                "waves_to_text": sum(said) / count,
                "judge": sum(sure) / count,  # itself, on real waves: no model can be better than that
            },
            bounds={"text_to_waves": wilson(sum(right), count), "waves_to_text": wilson(sum(said), count)},
            goals={"text_to_waves": 0.9, "waves_to_text": 0.9},
            sections=[Section(title="Waves for captions", parts=[Grid(rows=[("", cells)])])],
        )


def caption_of(item: np.ndarray) -> str:
    """What the caption of a wave should be, by how far its phase goes along the first axis; "" for too short a one."""
    if len(item) < 2:
        return ""
    turned = item[..., 1] + 1j * item[..., 0]
    step = float(np.abs(np.angle(turned[1:] * turned[:-1].conj())).mean())
    return f"a {min(PACES, key=lambda pace: abs(step - np.mean(PACES[pace])))} wave"
