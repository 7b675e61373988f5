"""Charts: round numbers at the axes, every extreme kept however long the line, and no text taken for markup."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from colatent.evaluate.chart import FEW, MOST, log_ticks, number, ordered_hues, smooth, svg, thin, ticks
from colatent.evaluate.page import Chart, Line


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 60, [0, 20, 40, 60]),
        (0.31, 1.9, [0.5, 1.0, 1.5]),
        (-3, 12, [0, 5, 10]),
        (7, 7, [7]),
        (0, 1e-9, [0, 2e-10, 4e-10, 6e-10, 8e-10, 1e-9]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.05, 3, [0.05, 0.1, 0.2, 0.5, 1, 2]), (1e-6, 2.0, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])],
)
def test_ticks_of_a_log_axis_are_powers(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.2345, "1.23"), (0.00312, "0.00312"), (2.04e-8, "2e-08"), (1000, "1000"), (12345, "12.3k"),
     (250_000, "250k"), (3.2e6, "3.2M"), (-1.5, "-1.5")],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_long_line_keeps_its_ends_and_extremes() -> None:
    points = [(float(step), math.sin(step / 700)) for step in range(100_000)]
    points[54_321] = (54_321.0, 40.0)
    points[777] = (777.0, -40.0)
    kept = thin(points)
    assert len(kept) <= MOST + 1
    assert kept[-1] == points[-1]
    assert {points[54_321], points[777]} <= set(kept)
    assert kept == sorted(kept)
    assert thin(points[:MOST]) == points[:MOST]


def test_an_average_neither_lags_nor_shrinks() -> None:
    falling = [2.0 * 0.97**step for step in range(200)]
    assert smooth(falling)[:190] == pytest.approx(falling[:190])  # a straight line on a log axis stays one
    level = [1.0 + 0.5 * (-1) ** step for step in range(200)]
    assert max(smooth(level)[20:]) < 1.2 < max(level)
    below = [float(step - 100) for step in range(200)]
    assert smooth(below)[50:150] == pytest.approx(below[50:150])
    assert smooth([3.0, 1.0]) == [3.0, 1.0]


def drawing(chart: Chart) -> ET.Element:
    return ET.fromstring(svg(chart))


def line(name: str = "a", *values: float) -> Line:
    return Line(name=name, points=[(float(step), value) for step, value in enumerate(values)])


def heights(found: ET.Element) -> list[float]:
    return [float(circle.attrib["cy"]) for circle in found.iter("circle")]


def test_what_is_higher_stands_higher() -> None:
    found = heights(drawing(Chart(title="t", lines=[line("a", 1.0, 3.0, 2.0)])))
    assert found[1] < found[2] < found[0]


def test_a_log_axis_is_taken_where_it_shows_more() -> None:
    def steps(log: bool, *values: float) -> tuple[float, float]:
        first, second, third = heights(drawing(Chart(title="t", lines=[line("a", *values)], log=log)))
        return first - second, second - third

    first, second = steps(True, 0.01, 0.1, 1.0)
    assert first == pytest.approx(second, abs=0.11)
    first, second = steps(False, 0.01, 0.1, 1.0)
    assert second > 5 * first
    first, second = steps(True, -1.0, 0.1, 1.0)  # no logarithm of what is not positive
    assert first == pytest.approx(1.1 / 0.9 * second, rel=0.01)


def test_single_values_and_empty_lines_are_drawn_as_far_as_they_go() -> None:
    assert len(heights(drawing(Chart(title="t", lines=[line("a", 2.0), line("b")])))) == 1
    assert not heights(drawing(Chart(title="t", lines=[line("b")])))


def test_long_lines_are_averaged_where_asked() -> None:
    many = line("a", *(float(step % 3) for step in range(FEW)))

    def kinds(smoothed: bool) -> list[str | None]:
        return [path.get("class") for path in drawing(Chart(title="t", lines=[many], smoothed=smoothed)).iter("path")]

    assert kinds(True).count("faint") == 1
    assert kinds(False).count("faint") == 0


def test_names_are_text() -> None:
    evil = "<script>alert('\"&')</script>"
    found = drawing(Chart(title=evil, lines=[line(evil, 1.0, 2.0)], x=evil))
    assert not list(found.iter("script"))
    assert "".join(found.itertext()).count("alert(") == 4


def test_colours_of_an_order_do_not_repeat() -> None:
    hues = ordered_hues(9)
    assert hues == sorted(set(hues), reverse=True)
    assert ordered_hues(1) == [235]
