"""How a picture is brought to a size that the codec takes, and how training varies it.

Everything is cut out before it is scaled, so that a picture of odd proportions never grows on the way.

Axes: P bands, H and W rows and columns.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from colatent_image.config import Framing


def framed(pixels_PHW: Tensor, config: Framing) -> Tensor:
    """The picture at the size that `config.fit` gives it."""
    height, width = pixels_PHW.shape[-2:]
    if config.fit == "keep":
        return _resized_crop(pixels_PHW, (0, 0, height, width), whole_size(height, width, config))
    scale = min(height / config.height, width / config.width)
    rows, columns = max(1, round(config.height * scale)), max(1, round(config.width * scale))
    centred = ((height - rows) // 2, (width - columns) // 2, rows, columns)
    return _resized_crop(pixels_PHW, centred, (config.height, config.width))


def whole_size(height: int, width: int, config: Framing) -> tuple[int, int]:
    """A picture's own height and width in whole latents, scaled down where it has more than height x width pixels."""
    side, budget = config.downsample, config.height * config.width
    scale = min(1.0, math.sqrt(budget / (height * width)))
    rows, columns = (max(1, round(size * scale / side)) * side for size in (height, width))
    return min(rows, budget // side), min(columns, budget // side)  # of a strip one latent wide, too


def random_crop(pixels_PHW: Tensor, least: float, rng: np.random.Generator) -> Tensor:
    """A window that keeps at least the share `least` of height and width, drawn by `rng`."""
    share, top, left = rng.uniform(least, 1.0), rng.random(), rng.random()
    height, width = pixels_PHW.shape[-2:]
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    return F.crop(pixels_PHW, int(top * (height - rows + 1)), int(left * (width - columns + 1)), rows, columns)


def _resized_crop(pixels_PHW: Tensor, window: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """The part (top, left, height, width) of a picture, scaled to `size` where it has another."""
    if window[2:] == size:
        return F.crop(pixels_PHW, *window)
    return F.resized_crop(pixels_PHW, *window, size=list(size), antialias=True)
