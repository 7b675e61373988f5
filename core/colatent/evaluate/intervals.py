"""How sure one may be of a share that was counted."""

from __future__ import annotations

from math import sqrt

Z = 1.959964
"""The 97.5 % point of the normal distribution: intervals are of 95 %."""


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share, as shares of 1 (Wilson 1927): it stays inside 0 to 1, also at both ends."""
    share, z2 = right / count, Z * Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z / (1 + z2 / count) * sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
