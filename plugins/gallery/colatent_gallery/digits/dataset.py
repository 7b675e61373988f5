"""The dataset `digits`: one digit a sample, as a caption, as a scan and as a tone.

A training sample's scan is varied a little, its caption and tone are drawn afresh each time; a held-out sample's scan
is as it was scanned, and no model has seen it.
"""

from __future__ import annotations

import numpy as np

from colatent.data.dataset import Sample, Split
from colatent_gallery.digits.captions import caption
from colatent_gallery.digits.scans import load_scans, vary
from colatent_gallery.digits.settings import DigitsConfig
from colatent_gallery.digits.tones import tone


class Digits:
    """`{"text": "press seven", "image": (1, 8, 8), "audio": (samples,)}`, one for each scan."""

    def __init__(self, config: DigitsConfig, *, split: Split) -> None:
        training, test = load_scans(heldout=config.heldout, seed=config.seed)
        self._config, self._line, self._training = config, config.line(), split == "train"
        self._scans = training if self._training else test

    def __len__(self) -> int:
        return len(self._scans.digits)

    def facts(self) -> dict[str, dict[str, int]]:
        """See `colatent.data.dataset.FactualDataset`."""
        return {"audio": {"sample_rate": self._config.sample_rate}}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """See `colatent.data.dataset.Dataset.sample`."""
        digit, image = int(self._scans.digits[index]), self._scans.images[index]
        if self._training and rng.uniform() < self._config.varied:
            image = vary(image, rng, shift=self._config.shift, gain=self._config.gain)
        return {"text": caption(digit, rng), "image": image, "audio": tone(digit, rng, line=self._line)}
