"""How facts about runs are worded, on the page and in the terminal: names, times, sizes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from colatent.evaluate.run_facts import RunFacts


def names(runs: Sequence[RunFacts]) -> list[str]:
    """What to call runs beside each other: their folders' names, or whole paths where two have the same."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def moment(seconds: float) -> str:
    """A point of time, as the clock on the wall had it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def span(seconds: float) -> str:
    """A length of time: 42 s, 12 min, 3 h 5 min."""
    minutes = round(max(0.0, seconds) / 60)
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """A number of bytes: 512 B, 3.4 MB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
