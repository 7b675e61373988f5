"""Which digit a picture shows, by a support vector machine fitted on the real scans for training."""

from __future__ import annotations

import numpy as np

from colatent_gallery.digits.scans import DEPTH, Scans

GAMMA = 0.001
"""Of the radial kernel over pixels from 0 to 16."""


class ScanJudge:
    """Fitted when built."""

    def __init__(self, training: Scans) -> None:
        from sklearn.svm import SVC

        self._machine = SVC(gamma=GAMMA).fit(_pixels(training.images), training.digits)

    def read(self, images: np.ndarray) -> list[int]:
        """The digit of each picture."""
        return [int(digit) for digit in self._machine.predict(_pixels(images))]


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) * DEPTH
