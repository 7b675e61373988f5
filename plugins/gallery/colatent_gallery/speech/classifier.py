"""Which digit a sound says, by a support vector machine over cepstra, fitted on the real recordings for training.

It knows a sound by means and spreads of its mel-frequency cepstral coefficients, as a whole and in four parts one after
the other, so that it takes little notice of how long a digit lasts and none of phases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from colatent.errors import UserError
from colatent_gallery.speech.recordings import RATE, Recording

if TYPE_CHECKING:
    from torch import Tensor

PARTS = 4
LEAST = RATE // 20
"""Samples of the shortest sound that could be a digit."""


class VoiceJudge:
    """Fitted when built."""

    def __init__(self, training: Sequence[Recording]) -> None:
        try:
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
            from sklearn.svm import SVC
        except ImportError as error:
            what = f"needs scikit-learn, which cannot be imported ({error})"
            raise UserError(what, where="task 'spoken-digits'", do='pip install "colatent[gallery]"') from error
        features = [features_of(one.sound) for one in training]
        self._machine = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(features, [one.digit for one in training])

    def hear(self, sounds: Sequence[np.ndarray]) -> list[int | None]:
        """The digit of each sound; None where it is too short to be one, silent, or not finite."""
        return [self._digit(np.asarray(sound, dtype=np.float32)) for sound in sounds]

    def _digit(self, sound: np.ndarray) -> int | None:
        if len(sound) < LEAST or not np.isfinite(sound).all() or not sound.any():
            return None
        return int(self._machine.predict([features_of(sound)])[0])


def features_of(sound: np.ndarray) -> np.ndarray:
    """Means and spreads of the cepstra of a sound (samples,), and of their change; (140,)."""
    import torch

    cepstra_QF = _cepstra()(torch.from_numpy(sound)).numpy()
    change_QF = cepstra_QF[:, 2:] - cepstra_QF[:, :-2]
    parts = [part.mean(axis=1) for part in np.array_split(cepstra_QF, PARTS, axis=1)]
    return np.concatenate([cepstra_QF.mean(axis=1), cepstra_QF.std(axis=1), change_QF.std(axis=1), *parts])


@cache
def _cepstra() -> Callable[[Tensor], Tensor]:
    """Sound (samples,) to cepstra (20, frames)."""
    from torchaudio import transforms

    # Frames of 32 ms, one every 10 ms: the usual ones for speech.
    bands = {"n_fft": 256, "hop_length": RATE // 100, "n_mels": 40}
    return transforms.MFCC(RATE, n_mfcc=20, melkwargs=bands)
