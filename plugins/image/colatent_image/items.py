"""What the image plugin calls an item: an array of pixels, and where its latents stand.

An item is a `numpy.ndarray` of float32, (bands, height, width), with values from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from colatent.errors import UserError
from colatent_image.config import Framing

Image: TypeAlias = npt.NDArray[np.float32]


def checked(item: Image, place: int, *, config: Framing) -> Image:
    """The item, if it is what the codec takes; `place` is its number in the batch."""
    where, kind = f"image {place}", f"a float32 array ({config.bands}, height, width) with values from 0 to 1"
    if not isinstance(item, np.ndarray) or item.dtype != np.float32 or item.ndim != 3 or len(item) != config.bands:
        found = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else f"a {type(item).__name__}"
        raise UserError(f"is {found}", where=where, do=f"give {kind}")
    height, width = item.shape[1:]
    if not item.size or height % config.downsample or width % config.downsample:
        what = f"is {height} x {width} pixels, its sides must be multiples of downsample ({config.downsample})"
        raise UserError(what, where=where, do="crop or resize it")
    if not (item.min() >= 0 and item.max() <= 1):  # not `< 0 or > 1`: NaN is refused too
        raise UserError("has values below 0 or above 1, or that are no numbers", where=where, do=f"give {kind}")
    return item


def by_size(sizes: Sequence[Hashable]) -> list[list[int]]:
    """The places of equal sizes, in order of appearance."""
    groups: dict[Hashable, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    return list(groups.values())


def grid_positions(rows: int, columns: int) -> Tensor:
    """(row, column) of each latent, (L, 2), row by row."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).view(-1, 2).float()


def grid_size(positions_LA: Tensor) -> tuple[int, int]:
    """Latents down and across, from where they stand."""
    rows, columns = (int(last) + 1 for last in positions_LA.amax(0))
    return rows, columns


def example(number: int, *, side: int, bands: int) -> Image:
    """A wave in a picture of one to three squares of `side` pixels each way."""
    height, width = side * (1 + number % 3), side * (1 + number // 2 % 3)
    row, column = np.indices((height, width)) / side
    phases = np.arange(bands)[:, None, None] + number
    return (0.5 + 0.5 * np.sin((1 + number % 5) * row + (2 + number % 3) * column + phases)).astype(np.float32)
