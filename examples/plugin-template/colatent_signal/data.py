"""Slow and quick waves of any length, with captions: sine and cosine of one phase in every place.

Yours: what you want to learn.
"""

from __future__ import annotations

import numpy as np

from colatent.data.dataset import Sample, Split
from colatent_signal.config import WavesSettings

PACES = {"slow": (0.2, 0.4), "quick": (0.6, 0.8)}
"""What a caption says, and how far the phase goes from one place to the next, in radians."""


class Waves:
    """`{"signal": array, "text": caption}`: float32, (length, features) with 2 features."""

    def __init__(self, config: WavesSettings, *, split: Split) -> None:
        # Yours: open your files here. What is held out must not be among what is trained on.
        self._config = config
        self._key = ("train", "heldout").index(split)

    def __len__(self) -> int:
        return self._config.size

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """One sample. It may depend on `index` and `rng`, and on nothing else, or resuming a run would not be exact."""
        rng = np.random.default_rng([self._key, int(rng.integers(2**32))])
        pace = list(PACES)[int(rng.integers(len(PACES)))]
        longest = self._config.longest
        shape = rng.integers(max(1, longest // 2), longest + 1, size=1).tolist()
        steps = rng.uniform(*PACES[pace], size=1)
        phase = rng.uniform(0.0, 2 * np.pi) + np.tensordot(steps, np.indices(shape), axes=1)
        wave = np.stack([np.sin(phase), np.cos(phase)], axis=-1)
        item = (wave + rng.normal(scale=self._config.noise, size=wave.shape)).astype(np.float32)
        # Another field is another modality's: a config that has no stream for it does not read it.
        return {"signal": item, "text": f"a {pace} wave"}
