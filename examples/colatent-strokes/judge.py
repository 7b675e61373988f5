"""Judge a trained prior: are its drawings what their captions say, and its captions what the drawings show?

    python judge.py runs/strokes [--each 10] [--out FOLDER]

A drawing belongs to the shape whose clean template is nearest once both are moved and scaled to the same frame (mean
distance of each point to the other's line, at the best of a few tilts); it is small or big by how much it was scaled.
The judge has seen no model; what it makes of held-out drawings is printed beside.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import colatent
from colatent import Given
from colatent.generate.model import Model
from colatent_strokes.config import DrawnShapesConfig
from colatent_strokes.drawings import DrawnShapes
from colatent_strokes.files import to_svg
from colatent_strokes.shapes import SHAPES, SIZES, join, resample, split

TILTS = np.radians([-15.0, -7.5, 0.0, 7.5, 15.0])
BORDER = 0.65
"""Between small and big, as a share of the template's size."""
THINGS = [f"{size} {name}" for size in SIZES for name in SHAPES]
"""All that can be asked for, in the order of the dataset."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Framed:
    """Points (N, 2) densely along the lines of a drawing, moved and scaled to fill -1 to 1; and its extent before."""

    points: np.ndarray
    extent: float


def frame(drawing: np.ndarray) -> Framed:
    """A drawing of at least two points, framed."""
    points = np.concatenate([resample(stroke, 0.05) for stroke in split(drawing) if len(stroke) > 1])
    low, high = points.min(0), points.max(0)
    extent = max(float((high - low).max()), 1e-6)
    return Framed(points=(2 * points - low - high) / extent, extent=extent)


def tilted(strokes: Sequence[np.ndarray], angle: float) -> Framed:
    """A clean template, tilted."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return frame(join([stroke @ turn for stroke in strokes]))


TEMPLATES = [(name, tilted(strokes, angle)) for name, strokes in SHAPES.items() for angle in TILTS]


def distance(one: Framed, other: Framed) -> float:
    """Mean distance of each point to the nearest of the other, both ways."""
    apart = np.linalg.norm(one.points[:, None] - other.points[None], axis=-1)
    return float(apart.min(0).mean() + apart.min(1).mean())


def seen(drawing: np.ndarray) -> str:
    """Size and name of the nearest shape; "no line" where there is none."""
    if all(len(stroke) < 2 for stroke in split(drawing)):
        return "no line"
    framed = frame(drawing)
    name, template = min(TEMPLATES, key=lambda each: distance(framed, each[1]))
    return f"{'small' if framed.extent < BORDER * template.extent else 'big'} {name}"


def percent(right: Iterable[bool]) -> str:
    """A share, and of how many."""
    found = list(right)
    return f"{100 * sum(found) / len(found):5.1f} % of {len(found)}"


def judge_drawings(model: Model, *, each: int, out: Path | None) -> None:
    """text -> strokes."""
    prompts = [[Given("text", f"draw a {thing}")] for thing in THINGS]
    drawn = [[one.item for one in some] for some in model.generate_many(prompts, target="strokes", n=each, seed=0)]
    pairs = [(seen(item), thing) for thing, some in zip(THINGS, drawn, strict=True) for item in some]
    print("text -> strokes, shape          ", percent(a.split(" ", 1)[1] == b.split(" ", 1)[1] for a, b in pairs))
    print("text -> strokes, shape and size ", percent(a == b for a, b in pairs))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for thing, some in zip(THINGS, drawn, strict=True):
            for number, item in enumerate(some):
                (out / f"{thing.replace(' ', '-')}-{number}.svg").write_text(to_svg(item), encoding="utf-8")


def judge_captions(model: Model, *, each: int) -> None:
    """strokes -> text, and the judge itself."""
    heldout, things = DrawnShapes(DrawnShapesConfig(), split="heldout"), THINGS * each
    real = [heldout.sample(index, np.random.default_rng(index))["strokes"] for index in range(len(things))]
    told = model.generate_many([[Given("strokes", item)] for item in real], target="text", seed=0)
    right = (some[0].item.endswith(thing) for thing, some in zip(things, told, strict=True))
    print("strokes -> text, shape and size ", percent(right))
    print(
        "the judge on held-out drawings  ",
        percent(seen(item) == thing for thing, item in zip(things, real, strict=True)),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Judge a trained prior over words and strokes.")
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--each", type=int, default=10, help="samples of each of the 20 things")
    parser.add_argument("--out", type=Path, help="write the drawings into this folder, as SVG")
    options = parser.parse_args()
    trained = colatent.load(options.run)
    judge_drawings(trained, each=options.each, out=options.out)
    judge_captions(trained, each=options.each)
