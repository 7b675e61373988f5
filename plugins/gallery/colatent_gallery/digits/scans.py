"""Scans of handwritten digits: the 1,797 pictures of 8 x 8 pixels that scikit-learn carries.

They are split once, by a permutation that only the seed decides, with the same share of every digit on either side, so
that the dataset and whoever judges a model agree on what was held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from colatent.errors import UserError

SIDE = 8
DEPTH = 16
"""Grey levels above black: pixels of a scan are 0 to 16."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scans:
    """Scans of one split: pixels 0..1, float32 (count, 1, 8, 8), and their digits."""

    images: np.ndarray
    digits: np.ndarray


def load_scans(*, heldout: float, seed: int) -> tuple[Scans, Scans]:
    """The scans for training and those held out: a share `heldout` of each digit."""
    images, digits = _all_scans()
    order = np.random.default_rng(seed).permutation(len(digits))
    rank = np.empty(len(order), dtype=int)
    for digit in range(10):
        ours = order[digits[order] == digit]
        rank[ours] = np.arange(len(ours)) < round(heldout * len(ours))
    held, kept = order[rank[order] == 1], order[rank[order] == 0]
    training, test = (Scans(images=images[some], digits=digits[some]) for some in (kept, held))
    return training, test


@cache
def _all_scans() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        what = f"needs scikit-learn, which cannot be imported ({error})"
        raise UserError(what, where="dataset 'digits'", do='pip install "colatent[gallery]"') from error
    found = load_digits()
    return (found.images[:, None] / DEPTH).astype(np.float32), found.target


def vary(image: np.ndarray, rng: np.random.Generator, *, shift: float, gain: float) -> np.ndarray:
    """A scan as another stroke of the scanner: moved by up to `shift` pixels each way, ink scaled by 1 - `gain` to
    1 + `gain`."""
    down, right = rng.uniform(-shift, shift, size=2)
    moved = moved_by(moved_by(image, float(down), axis=1), float(right), axis=2)
    return np.clip(moved * rng.uniform(1 - gain, 1 + gain), 0.0, 1.0).astype(np.float32)


def moved_by(image: np.ndarray, pixels: float, *, axis: int) -> np.ndarray:
    """Pixels moved along an axis by linear interpolation; what comes in at the border is blank."""
    size, whole = image.shape[axis], int(np.floor(pixels))
    padding = [(0, 0)] * image.ndim
    padding[axis] = (abs(whole) + 1, abs(whole) + 1)
    padded, start = np.pad(image, padding), abs(whole) + 1 - whole
    near = np.take(padded, range(start, start + size), axis=axis)
    far = np.take(padded, range(start - 1, start - 1 + size), axis=axis)
    return near + (pixels - whole) * (far - near)
