"""The tones of a telephone's keypad as ITU-T Q.23 lays them down: one of four low frequencies with one of three high
ones. Made here for training, and told apart in `detector`; a codec never learns how they are made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS = (697.0, 770.0, 852.0, 941.0)
COLUMNS = (1209.0, 1336.0, 1477.0)
KEYPAD = ("123", "456", "789", "*0#")
"""Keys by row and column."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What a telephone line does to a tone; ranges are (least, most).

    rate     samples per second
    seconds  length of a tone
    level    peak of what arrives, in dB of full scale
    twist    by how many dB one of the two frequencies is louder than the other, either way, at most
    snr      the tone over white noise, in dB
    """

    rate: int
    seconds: tuple[float, float]
    level: tuple[float, float]
    twist: float
    snr: tuple[float, float]


def frequencies(digit: int) -> tuple[float, float]:
    """The low and the high frequency of a digit's key."""
    row = next(number for number, keys in enumerate(KEYPAD) if str(digit) in keys)
    return ROWS[row], COLUMNS[KEYPAD[row].index(str(digit))]


def tone(digit: int, rng: np.random.Generator, *, line: Line) -> np.ndarray:
    """A key press as it arrives, float32 (samples,), never beyond -1 and 1."""
    count = round(rng.uniform(*line.seconds) * line.rate)
    twist, level = rng.uniform(-line.twist, line.twist), rng.uniform(*line.level)
    amplitudes = np.array([10 ** (twist / 40), 10 ** (-twist / 40)])
    phases = rng.uniform(0, 2 * np.pi, size=2)
    angles = 2 * np.pi * np.outer(np.arange(count) / line.rate, frequencies(digit)) + phases
    clean = (np.sin(angles) * amplitudes).sum(axis=1)
    noise = rng.normal(scale=np.sqrt(clean.var() / 10 ** (rng.uniform(*line.snr) / 10)), size=count)
    heard = clean + noise
    return (heard / np.abs(heard).max() * 10 ** (level / 20)).astype(np.float32)
