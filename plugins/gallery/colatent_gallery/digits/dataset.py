"""The dataset `digits`: one digit a sample, as a caption, as a scan and as a tone.

A training sample's scan is varied a little, its caption and tone are drawn afresh each time; a held-out sample's scan
is as it was scanned, and no model has seen it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

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
        return Digit(text=caption(digit, rng), image=image, tone=partial(tone, digit, rng, line=self._line))


class Digit(Mapping[str, Any]):
    """A sample whose tone is made when it is asked for: that takes three quarters of the time, and most steps have no
    stream that hears it."""

    def __init__(self, *, text: str, image: np.ndarray, tone: Callable[[], np.ndarray]) -> None:
        self._made: dict[str, Any] = {"text": text, "image": image}
        self._tone = tone

    def __getitem__(self, field: str) -> Any:
        if field == "audio" and field not in self._made:
            self._made[field] = self._tone()
        return self._made[field]

    def __iter__(self) -> Iterator[str]:
        return iter(("text", "image", "audio"))

    def __len__(self) -> int:
        return 3
