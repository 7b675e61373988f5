"""The dataset `spoken-digits`: a digit that somebody speaks, and a caption of it.

A training sample's recording is varied a little and its caption drawn afresh each time; a held-out recording is as it
was made, and no model has heard it.
"""

from __future__ import annotations

import numpy as np

from colatent.data.dataset import Sample, Split
from colatent_gallery.digits.captions import SPOKEN, caption
from colatent_gallery.speech.recordings import RATE, load_recordings
from colatent_gallery.speech.settings import SpokenDigitsConfig
from colatent_gallery.speech.varying import vary


class SpokenDigits:
    """`{"text": "somebody says seven", "audio": (samples,)}`, one for each recording."""

    def __init__(self, config: SpokenDigitsConfig, *, split: Split) -> None:
        training, test = load_recordings(config.path, heldout=config.heldout)
        self._training, self._how = split == "train", config.variation()
        self._recordings = training if self._training else test

    def __len__(self) -> int:
        return len(self._recordings)

    def facts(self) -> dict[str, dict[str, int]]:
        """See `colatent.data.dataset.FactualDataset`."""
        return {"audio": {"sample_rate": RATE}}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """See `colatent.data.dataset.Dataset.sample`."""
        one = self._recordings[index]
        text = caption(one.digit, rng, templates=SPOKEN)
        sound = vary(one.sound, rng, how=self._how, rate=RATE) if self._training else one.sound
        return {"text": text, "audio": sound}
