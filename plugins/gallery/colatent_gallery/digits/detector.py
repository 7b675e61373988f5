"""Which key a sound is, by Goertzel's algorithm: a judge that knows the keypad's frequencies and nothing of a model.

A sound is cut into frames of 205 samples at 8 kHz, as telephone exchanges do, and power is added up over frames: where
in the sound the tone lies and whether its phase jumps does not matter, only whether two frequencies carry the sound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colatent_gallery.digits.tones import COLUMNS, KEYPAD, ROWS

FRAME = 205 / 8000
"""Seconds of a frame."""
LEAST_SHARE = 0.5
"""Of the sound's power that the two frequencies must carry together."""
MOST_TWIST = 12.0
"""Decibels by which one of the two may be louder than the other."""


def goertzel(frames_FN: np.ndarray, hertz_T: Sequence[float], *, rate: int) -> np.ndarray:
    """|sum_n x_n exp(-2 pi i n f / rate)|^2, (F, T), of F frames of N samples at T frequencies, by the two-term
    recurrence."""
    coefficient_T = 2 * np.cos(2 * np.pi * np.asarray(hertz_T) / rate)
    last_FT = before_FT = np.zeros((len(frames_FN), len(hertz_T)))
    for sample_F in frames_FN.T:
        last_FT, before_FT = sample_F[:, None] + coefficient_T * last_FT - before_FT, last_FT
    return np.asarray(last_FT**2 + before_FT**2 - coefficient_T * last_FT * before_FT)


def detect(sound: np.ndarray, *, rate: int) -> int | None:
    """The digit whose key this is; None where it is no key, or none of a digit."""
    size = round(FRAME * rate)
    frames_FN = np.asarray(sound, dtype=float)[: len(sound) // size * size].reshape(-1, size)
    total = float((frames_FN**2).sum())
    if not total > 0 or not np.isfinite(total):
        return None
    # A sinusoid of a frame's N samples with energy E has |X|^2 = E N / 2.
    share_T = goertzel(frames_FN, (*ROWS, *COLUMNS), rate=rate).sum(axis=0) * 2 / size / total
    rows, columns = share_T[: len(ROWS)], share_T[len(ROWS) :]
    pair = (rows.max(), columns.max())
    if sum(pair) < LEAST_SHARE or max(pair) > 10 ** (MOST_TWIST / 10) * min(pair):
        return None
    key = KEYPAD[int(rows.argmax())][int(columns.argmax())]
    return int(key) if key.isdigit() else None
