"""What a generated picture and a generated name are worth, told without any model.

A picture is taken for the nearest of all true ones (squared difference of pixels), a name for what it says, letter by
letter. Characters whose pictures are identical are one class: any of its names and its one picture are right.

Axes: B generated pictures, M classes, K nearest ones, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colatent_gallery.glyphs.faces import Alphabet


def class_pictures(alphabet: Alphabet) -> np.ndarray:
    """The one picture of each class, (M, H, W)."""
    return alphabet.pictures_NHW[np.unique(alphabet.classes_N, return_index=True)[1]]


def nearest_classes(pictures_BHW: np.ndarray, alphabet: Alphabet, *, count: int = 5) -> np.ndarray:
    """The classes whose pictures are nearest to each one, nearest first, (B, K)."""
    true_MP = class_pictures(alphabet).reshape(-1, pictures_BHW[0].size).astype(np.float64)
    made_BP = pictures_BHW.reshape(len(pictures_BHW), -1).astype(np.float64)
    # |a - b|^2 less |a|^2, which is the same for all classes.
    distance_BM = (true_MP**2).sum(1) - 2 * made_BP @ true_MP.T
    return np.argsort(distance_BM, axis=1, kind="stable")[:, :count]


def class_of(name: str, alphabet: Alphabet) -> int | None:
    """The class of a name; None where no character is called that."""
    return int(alphabet.classes_N[alphabet.names.index(name)]) if name in alphabet.names else None


def named_right(names: Sequence[str], true: int, alphabet: Alphabet) -> bool:
    """Whether any of `names` is a name of the class `true`."""
    return any(class_of(name, alphabet) == true for name in names)


def strict_cap(alphabet: Alphabet) -> float:
    """How often the very name of a picture could be told at best, were the others of its class not counted: from
    identical pictures, one name can be told."""
    return len(np.unique(alphabet.classes_N)) / len(alphabet.names)
