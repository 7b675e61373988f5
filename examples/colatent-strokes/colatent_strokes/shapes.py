"""What is drawn: ten shapes as the strokes of a pen, within -1 to 1, y downwards as on a screen.

A drawing is one array (points, 3): x, y, and 1 where the pen is lifted after the point, 0 where it draws on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Strokes = list[np.ndarray]
"""Strokes of a drawing, (points, 2) each."""


def join(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """Strokes as one array (points, 3), float32."""
    lifted = [np.arange(len(stroke)) == len(stroke) - 1 for stroke in strokes]
    return np.concatenate([np.column_stack(pair) for pair in zip(strokes, lifted, strict=True)]).astype(np.float32)


def split(drawing: np.ndarray) -> Strokes:
    """The strokes of an array (points, 3); the last one ends with the array."""
    ends = np.flatnonzero(drawing[:-1, 2] > 0.5) + 1
    return np.split(drawing[:, :2], ends)


def resample(stroke: np.ndarray, spacing: float) -> np.ndarray:
    """The same line with its points about `spacing` apart, both ends kept."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(stroke, axis=0), axis=1))])
    places = np.linspace(0.0, lengths[-1], max(2, round(lengths[-1] / spacing) + 1))
    return np.column_stack([np.interp(places, lengths, stroke[:, axis]) for axis in range(2)])


def _line(*corners: tuple[float, float]) -> np.ndarray:
    return np.array(corners, dtype=float)


def _arc(radius: np.ndarray | float, turns: np.ndarray) -> np.ndarray:
    """Points at these turns of a circle, clockwise from the top."""
    angle = 2 * np.pi * turns
    return np.column_stack([radius * np.sin(angle), -radius * np.cos(angle)])


def _star() -> np.ndarray:
    return _arc(np.where(np.arange(11) % 2, 0.42, 1.0), np.arange(11) / 10)


def _spiral() -> np.ndarray:
    turns = np.linspace(0.0, 2.0, 100)
    return _arc(turns / 2, turns)


SHAPES: dict[str, Strokes] = {
    "circle": [_arc(1.0, np.linspace(0.0, 1.0, 60))],
    "square": [_line((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9), (-0.9, -0.9))],
    "triangle": [_arc(1.0, np.arange(4) / 3)],
    "star": [_star()],
    "spiral": [_spiral()],
    "zigzag": [_line((-1.0, 0.5), (-0.6, -0.5), (-0.2, 0.5), (0.2, -0.5), (0.6, 0.5), (1.0, -0.5))],
    "cross": [_line((-0.8, -0.8), (0.8, 0.8)), _line((0.8, -0.8), (-0.8, 0.8))],
    "arrow": [_line((-1.0, 0.0), (1.0, 0.0)), _line((0.5, -0.5), (1.0, 0.0), (0.5, 0.5))],
    "letter A": [_line((-0.7, 1.0), (0.0, -1.0), (0.7, 1.0)), _line((-0.4, 0.2), (0.4, 0.2))],
    "letter H": [_line((-0.7, -1.0), (-0.7, 1.0)), _line((-0.7, 0.0), (0.7, 0.0)), _line((0.7, -1.0), (0.7, 1.0))],
}
"""The shapes by name, one unit from the middle to the edge."""

SIZES: dict[str, tuple[float, float]] = {"small": (0.45, 0.6), "big": (0.8, 0.95)}
"""Words for how large a shape is drawn, with the range of its scale."""
