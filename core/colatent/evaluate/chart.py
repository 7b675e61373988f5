"""A chart as inline SVG: lines over a common axis, drawn by the page's own colours, light or dark.

Drawn here and not by a plotting library, since a picture of pixels has one background, cannot be searched and weighs
twenty times as much. Nothing in it moves and nothing in it is a script: the last value of a line stands in the legend,
its name and range appear where a pointer rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import accumulate

from colatent.evaluate.page import Chart, Line

WIDE, HIGH = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 8, 34
"""Margins that hold the numbers of the axes."""
FEW, MOST = 15, 240
"""Points of a line that are marked one by one, and points that are drawn at most."""
STEEP = 8.0
"""A chart that may have a logarithmic axis gets one where its values span this factor."""
HUES = (212, 25, 140, 282, 350, 178, 48, 320, 95, 245, 5, 160)

Points = Sequence[tuple[float, float]]


def svg(chart: Chart) -> str:
    """The chart with its title and legend."""
    lines = [line for line in chart.lines if line.points]
    hues = ordered_hues(len(lines)) if chart.ordered else [HUES[place % len(HUES)] for place in range(len(lines))]
    apart = "" if chart.ordered else ' class="apart"'  # lines that coincide are told apart by dashes
    legend = "".join(_key(line, hue) for line, hue in zip(lines, hues, strict=True))
    return (
        f'<div class="chart"><h4>{escape(chart.title)}</h4><p class="keys">{legend}</p>'
        f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(chart.title)}"{apart}>'
        f"{_drawing(chart, lines, hues)}</svg></div>"
    )


def ordered_hues(count: int) -> list[int]:
    """From blue to red, for lines that have an order of their own."""
    return [round(235 - 225 * place / max(1, count - 1)) for place in range(count)]


def _key(line: Line, hue: int) -> str:
    last = f" <b>{number(line.points[-1][1])}</b>"
    return f'<span style="--h:{hue}">{escape(line.name or "last")}{last}</span>'


def _drawing(chart: Chart, lines: Sequence[Line], hues: Sequence[int]) -> str:
    every = [point for line in lines for point in line.points]
    if not every:
        return ""
    xs, ys = [x for x, _ in every], [y for _, y in every]
    log = chart.log and min(ys) > 0 and max(ys) > STEEP * min(ys)
    x_at = _scale(min(xs), max(xs), LEFT, WIDE - RIGHT)
    bounds = (math.log(min(ys)), math.log(max(ys))) if log else (min(ys), max(ys))
    y_linear = _scale(*bounds, HIGH - BOTTOM, TOP)

    def y_at(y: float) -> float:
        return y_linear(math.log(y) if log else y)

    marks = log_ticks(min(ys), max(ys)) if log else ticks(min(ys), max(ys), 5)
    axes = "".join(_horizontal(y_at(y), number(y)) for y in marks)
    axes += "".join(_below(x_at(x), number(x)) for x in ticks(min(xs), max(xs), 6))
    axes += f'<text x="{WIDE - RIGHT}" y="{HIGH - 4}" text-anchor="end" class="name">{escape(chart.x)}</text>'
    paths = (_line(line, hue, x_at, y_at, smoothed=chart.smoothed) for line, hue in zip(lines, hues, strict=True))
    return f"{axes}{''.join(paths)}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From values to places; a single value lies in the middle."""
    if high <= low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _horizontal(y: float, text: str) -> str:
    return (
        f'<path d="M{LEFT} {y:.1f}H{WIDE - RIGHT}" class="rule"/>'
        f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'
    )


def _below(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{HIGH - BOTTOM + 14}" text-anchor="middle">{text}</text>'


def _line(
    line: Line, hue: int, x_at: Callable[[float], float], y_at: Callable[[float], float], *, smoothed: bool
) -> str:
    values = [y for _, y in line.points]
    said = f"{line.name} {number(min(values))} to {number(max(values))}, last {number(values[-1])}"
    drawn, behind = line.points, ""
    if smoothed and len(values) >= FEW:  # single steps stand, faint, behind their average
        drawn = list(zip((x for x, _ in line.points), smooth(values), strict=True))
        behind = f'<path d="{_path(line.points, x_at, y_at)}" class="faint"/>'
    dots = ""
    if len(values) < FEW:
        dots = "".join(f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="2.4"/>' for x, y in line.points)
    path = f'<path d="{_path(drawn, x_at, y_at)}" class="line"/>'
    return f'<g style="--h:{hue}"><title>{escape(said)}</title>{behind}{path}{dots}</g>'


def _path(points: Points, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    return "M" + "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in thin(points))


def thin(points: Points) -> Points:
    """At most `MOST` points that look like all of them: of each stretch its lowest and its highest."""
    if len(points) <= MOST:
        return points
    size = -(-2 * len(points) // MOST)
    stretches = [range(start, min(start + size, len(points))) for start in range(0, len(points), size)]
    kept = {
        place
        for one in stretches
        for place in (min(one, key=lambda at: points[at][1]), max(one, key=lambda at: points[at][1]))
    }
    return [points[place] for place in sorted(kept | {len(points) - 1})]


def smooth(values: Sequence[float]) -> list[float]:
    """Centred running average, of logarithms where all are positive; short series stay as they are.

    It does not lag: at the beginning, where losses fall steeply, it has as many values behind a place as before it."""
    if len(values) < FEW:
        return list(values)
    into, out = (math.log, math.exp) if min(values) > 0 else (float, float)
    sums = [0.0, *accumulate(map(into, values))]
    last, half = len(values) - 1, max(2, len(values) // 40)
    spans = ((place - min(half, place), min(last, place + min(half, place)) + 1) for place in range(len(values)))
    return [out((sums[end] - sums[start]) / (end - start)) for start, end in spans]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two values, roughly so many."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two values, with 2 and 5 times them where these are few."""
    factors = (1, 2, 5) if high < 1e3 * low else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**decade for decade in decades for factor in factors if low <= factor * 10.0**decade <= high]


def number(value: float) -> str:
    """As short as a reader needs it: 1.25, 0.0031, 12k, 2e-08."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.3g}{name}"
    if value and abs(value) < 1e-3:
        return f"{value:.2g}"
    return f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3g}"
