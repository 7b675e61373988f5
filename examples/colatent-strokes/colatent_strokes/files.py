"""Drawings as SVG files: a polyline for each stroke, in the drawing's own coordinates, so that reading gives back what
was written. A file is searched for polylines and not parsed as XML: nothing in it can refer to another file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from colatent.errors import UserError
from colatent_strokes.shapes import join, split

POLYLINE = re.compile(r"<polyline\b[^>]*\bpoints=[\"']([^\"']*)[\"']")
REACH = 2.0
"""How far from the middle a point of a file may lie."""


def to_svg(drawing: np.ndarray) -> str:
    """A drawing as an SVG picture."""
    lines = [" ".join(f"{x:.5f},{y:.5f}" for x, y in stroke) for stroke in split(drawing)]
    body = "".join(f'<polyline points="{line}"/>' for line in lines)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1.2 -1.2 2.4 2.4" width="96" height="96">'
        f'<g fill="none" stroke="black" stroke-width="0.05" stroke-linecap="round">{body}</g></svg>\n'
    )


def from_svg(path: Path) -> np.ndarray:
    """The drawing in a file that `to_svg` could have written."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UserError("is not UTF-8", where=str(path), do="give an SVG file") from error
    strokes = [_points(line, path) for line in POLYLINE.findall(text)]
    if not strokes:
        raise UserError("has no polyline", where=str(path), do="draw with polylines, one for each stroke")
    drawing = join(strokes)
    if float(np.abs(drawing[:, :2]).max()) > REACH:
        what = f"a point lies more than {REACH:g} from the middle"
        raise UserError(what, where=str(path), do="scale the drawing to -1 to 1, the middle at 0, without transforms")
    return drawing


def _points(line: str, path: Path) -> np.ndarray:
    """The points of one polyline."""
    try:
        numbers = np.array([float(number) for number in line.replace(",", " ").split()])
    except ValueError as error:
        raise UserError(f"a polyline has {str(error).rpartition(' ')[2]} for a number", where=str(path)) from error
    if len(numbers) < 2 or len(numbers) % 2 or not np.isfinite(numbers).all():
        raise UserError("a polyline is not of pairs of finite numbers", where=str(path), do="give x,y for each point")
    return numbers.reshape(-1, 2)
