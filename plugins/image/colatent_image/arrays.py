"""Pictures of more bands than a picture file can have, as NumPy's `.npy` files of numbers.

Axes: P bands, H and W rows and columns.
"""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from colatent.errors import UserError
from colatent_image.config import Framing
from colatent_image.items import Image


def read_array(data: bytes, config: Framing, *, where: str) -> Tensor:
    """The picture in an `.npy` file, (P, H, W); bytes and 16-bit numbers are scaled to 0 to 1."""
    do = f"give an .npy file of an array ({config.bands}, height, width)"
    try:
        shape, _, kind = _header(data)
        fits = len(shape) == 3 and shape[0] == config.bands and min(shape) > 0
        if not fits or kind not in (np.uint8, np.uint16, np.float32, np.float64):
            raise UserError(f"holds {kind} {shape}", where=where, do=do)
        if math.prod(shape[1:]) > config.max_pixels:
            what = f"has {shape[1]} x {shape[2]} pixels, more than max_pixels={config.max_pixels:,}"
            raise UserError(what, where=where, do="scale it down, or raise max_pixels")
        array = np.load(BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError("is no .npy file, or is damaged", where=where, do=do) from error
    scaled = array / np.iinfo(kind).max if kind.kind == "u" else array
    if not (scaled.min() >= 0 and scaled.max() <= 1):  # not `< 0 or > 1`: NaN is refused too
        raise UserError("has values below 0 or above 1, or that are no numbers", where=where, do="scale them to 0 to 1")
    return torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))


def array_bytes(item: Image) -> bytes:
    """An item as an `.npy` file."""
    file = BytesIO()
    np.save(file, item, allow_pickle=False)
    return file.getvalue()


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and kind of what an `.npy` file holds."""
    file = BytesIO(data)
    version = npy.read_magic(file)
    return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
