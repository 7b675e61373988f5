"""How often something was right, and what was taken for what."""

from __future__ import annotations

from collections.abc import Sequence


def hits(expected: Sequence[object], found: Sequence[object]) -> int:
    """How many pairs are equal."""
    return sum(a == b for a, b in zip(expected, found, strict=True))


def confusion(expected: Sequence[int], found: Sequence[int | None], *, classes: int) -> list[list[int]]:
    """Counts of what was judged to be what, (classes, classes + 1); the last column is for what was none of them."""
    counts = [[0] * (classes + 1) for _ in range(classes)]
    for true, judged in zip(expected, found, strict=True):
        counts[true][classes if judged is None else judged] += 1
    return counts
