"""A recording as another one might have been made: a little faster or slower, louder or fainter, later and noisier.

There are few recordings, and a model that knows them by heart hears nothing new; what is varied here says nothing of
the digit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How far recordings are varied; ranges are (least, most).

    share  of samples that are varied; the others are as they were recorded
    speed  by which share a recording, its pitch with it, is faster or slower, at most
    gain   by how many dB it is louder or fainter, at most
    lead   seconds of silence before and after it, at most
    snr    the recording over white noise that is added, in dB
    """

    share: float
    speed: float
    gain: float
    lead: float
    snr: tuple[float, float]


def vary(sound: np.ndarray, rng: np.random.Generator, *, how: Variation, rate: int) -> np.ndarray:
    """A sound varied at random, float32, never beyond -1 and 1."""
    if rng.uniform() >= how.share:
        return sound
    quicker = at_speed(sound, 1.0 + rng.uniform(-how.speed, how.speed))
    before, after = (round(rng.uniform(0, how.lead) * rate) for _ in range(2))
    padded = np.pad(quicker, (before, after))
    level = np.sqrt(np.mean(quicker**2)) / 10 ** (rng.uniform(*how.snr) / 20)
    noisy = padded + rng.normal(scale=level, size=len(padded))
    louder = noisy * 10 ** (rng.uniform(-how.gain, how.gain) / 20)
    return (louder / max(1.0, float(np.abs(louder).max()))).astype(np.float32)


def at_speed(sound: np.ndarray, speed: float) -> np.ndarray:
    """The sound played `speed` times as fast, its pitch with it: resampled by its Fourier transform, which is exact
    for what the new rate can hold."""
    count = max(1, round(len(sound) / speed))
    spectrum = np.fft.rfft(np.asarray(sound, dtype=np.float64))
    return np.fft.irfft(spectrum, n=count) * (count / len(sound))
