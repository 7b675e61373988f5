"""Ten shapes by an unsteady hand, with captions: endless, offline, and a function of the generator alone.

The caption names shape and size; place, tilt, proportions and tremor it leaves open. So text → strokes has many right
answers and strokes → text few, and both can be checked (judge.py).
"""

from __future__ import annotations

import numpy as np

from colatent.data.dataset import Sample, Split
from colatent_strokes.config import DrawnShapesConfig
from colatent_strokes.shapes import SHAPES, SIZES, join, resample

CAPTIONS = ("{}", "a {}", "the {}", "one {}", "draw a {}", "here is a {}")
"""Ways to ask for a shape."""


class DrawnShapes:
    """`{"text": "draw a small circle", "strokes": drawing}`. The held-out drawings are others of the same kind."""

    def __init__(self, config: DrawnShapesConfig, *, split: Split) -> None:
        self._config = config
        self._key = ("train", "heldout").index(split)

    def __len__(self) -> int:
        return self._config.size

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """A drawing of the shape and size that `index` says, as the generator's hand draws it."""
        rng = np.random.default_rng([self._key, int(rng.integers(2**32))])  # no drawing is in both splits
        name = list(SHAPES)[index % len(SHAPES)]
        size = list(SIZES)[index // len(SHAPES) % len(SIZES)]
        caption = CAPTIONS[int(rng.integers(len(CAPTIONS)))].format(f"{size} {name}")
        return {"text": caption, "strokes": draw(name, size, self._config, rng)}


def draw(name: str, size: str, config: DrawnShapesConfig, rng: np.random.Generator) -> np.ndarray:
    """A shape as drawn by hand, (points, 3)."""
    angle = np.radians(rng.uniform(-config.tilt, config.tilt))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scale = rng.uniform(*SIZES[size])
    sides = scale * rng.uniform(0.9, 1.0, size=2)
    place = (1.0 - scale) * rng.uniform(-0.5, 0.5, size=2)
    strokes = [resample(stroke * sides @ turn + place, config.spacing) for stroke in SHAPES[name]]
    return join([stroke + rng.normal(scale=config.tremor, size=stroke.shape) for stroke in strokes])
