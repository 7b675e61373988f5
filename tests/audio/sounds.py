"""Keypad tones (ITU-T Q.23) and the detector that tells them, for tests of the audio plugin."""

from __future__ import annotations

import numpy as np

RATE = 8000
LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
KEYS = "123A456B789C*0#D"


def keypad(key: str, rng: np.random.Generator) -> np.ndarray:
    """0.1 to 0.25 seconds of a key's two tones, of any level, with a little noise."""
    row, column = divmod(KEYS.index(key), 4)
    time = np.arange(int(RATE * rng.uniform(0.1, 0.25))) / RATE
    level = 10 ** rng.uniform(-1.0, -0.4)
    phases = rng.uniform(0, 2 * np.pi, size=2)
    tones = np.sin(2 * np.pi * LOW[row] * time + phases[0]) + np.sin(2 * np.pi * HIGH[column] * time + phases[1])
    return (level * (tones + rng.normal(scale=0.05, size=len(time)))).astype(np.float32)


def detected(sound: np.ndarray) -> str:
    """The key whose tones are the strongest (Goertzel 1958: the power at a few frequencies)."""
    low, high = ([power(sound, pitch) for pitch in group] for group in (LOW, HIGH))
    return KEYS[4 * int(np.argmax(low)) + int(np.argmax(high))]


def power(sound: np.ndarray, pitch: float) -> float:
    """Power of a sound at one frequency, by Goertzel's recursion."""
    turn = 2 * np.cos(2 * np.pi * pitch / RATE)
    one = two = 0.0
    for sample in sound.tolist():
        one, two = sample + turn * one - two, one
    return one**2 + two**2 - turn * one * two
