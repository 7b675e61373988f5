"""Whether generated pictures vary as real ones do, and whether they are copies of what was trained on.

Distances are Euclidean over the 64 pixels, from 0 to 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from colatent_gallery.digits.scans import Scans


@dataclass(frozen=True, kw_only=True, eq=False)
class Likeness:
    """Generated pictures beside real ones.

    variety            by digit: mean distance of two generated pictures over that of two real ones
    overall            the same over all digits: the ratio of the means; None where each digit has one picture alone
    nearest_generated  distance of each generated picture to the nearest training scan
    nearest_real       the same of each held-out scan
    """

    variety: Mapping[int, float]
    overall: float | None
    nearest_generated: np.ndarray
    nearest_real: np.ndarray


def likeness(images: np.ndarray, digits: Sequence[int], *, training: Scans, test: Scans) -> Likeness:
    """Compare generated `images` of `digits` with real scans; their spread with that of all real ones of the digit."""
    real = np.concatenate([training.images, test.images])
    real_digits = np.concatenate([training.digits, test.digits])
    asked = np.asarray(digits)
    several = [digit for digit in range(10) if (asked == digit).sum() > 1]
    ours = {digit: spread(images[asked == digit]) for digit in several}
    theirs = {digit: spread(real[real_digits == digit]) for digit in several}
    return Likeness(
        variety={digit: ours[digit] / theirs[digit] for digit in several},
        overall=sum(ours.values()) / sum(theirs.values()) if several else None,
        nearest_generated=nearest(images, training.images),
        nearest_real=nearest(test.images, training.images),
    )


def spread(images: np.ndarray) -> float:
    """Mean distance of all pairs of pictures."""
    distances = _distances(images, images)
    return float(distances.sum() / (len(images) * (len(images) - 1)))


def nearest(images: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The distance of each picture to the nearest one of `among`."""
    return np.asarray(_distances(images, among).min(axis=1))


def _distances(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(ones.reshape(len(ones), -1), others.reshape(len(others), -1)))
