"""Waves of any direction and length: sine and cosine of one phase in every place. Yours: what you want to learn."""

from __future__ import annotations

import numpy as np

from colatent.data.dataset import Sample, Split
from colatent_signal.config import WavesSettings


class Waves:
    """`{"signal": array}`: float32, (length, features) with 2 features."""

    def __init__(self, config: WavesSettings, *, split: Split) -> None:
        # Yours: open your files here. What is held out must not be among what is trained on.
        self._config = config
        self._key = ("train", "heldout").index(split)

    def __len__(self) -> int:
        return self._config.size

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """One sample. It may depend on `index` and `rng`, and on nothing else, or resuming a run would not be exact."""
        rng = np.random.default_rng([self._key, int(rng.integers(2**32))])
        longest = self._config.longest
        shape = rng.integers(max(1, longest // 2), longest + 1, size=1).tolist()
        phase = rng.uniform(0.0, 2 * np.pi) + np.tensordot(rng.uniform(0.2, 0.8, size=1), np.indices(shape), axes=1)
        wave = np.stack([np.sin(phase), np.cos(phase)], axis=-1)
        return {"signal": (wave + rng.normal(scale=self._config.noise, size=wave.shape)).astype(np.float32)}
