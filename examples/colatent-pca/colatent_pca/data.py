"""Scikit-learn's scanned digits, 8 × 8 pixels, as vectors of 64 numbers from 0 to 1."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from colatent.data.dataset import Sample, Split
from colatent_pca.config import DigitVectorsConfig


class DigitVectors:
    """`{"vector": array}` of (64,), float32."""

    def __init__(self, config: DigitVectorsConfig, *, split: Split) -> None:
        pixels = load_digits().data.astype(np.float32) / 16.0
        held = np.arange(len(pixels)) % config.heldout == 0
        self._vectors = pixels[held if split == "heldout" else ~held]

    def __len__(self) -> int:
        return len(self._vectors)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return {"vector": self._vectors[index]}
