"""The picture of a run's curves: what is left out where there is too much for a panel, and that it is drawn at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from colatent.checkpoint.run import RunFolder
from colatent.evaluate.curves import Series, at_one_level, curves, draw_curves

LEVELS = ("0.1", "0.3", "0.5", "0.7", "0.9")


def scores(sources: int) -> Series:
    found = {f"s{number}/text/t={t}": [(0, 1.0)] for number in range(sources) for t in LEVELS}
    return {**found, "text/score": [(0, 0.5)]}


def test_few_curves_are_all_shown() -> None:
    assert at_one_level(scores(3)) == (scores(3), "")
    many = {f"codec{number}/score": [(0, 1.0)] for number in range(30)}
    assert at_one_level(many) == (many, "")


def test_of_many_those_at_the_middle_level_are_shown() -> None:
    kept, said = at_one_level(scores(4))
    assert list(kept) == [*(f"s{number}/text/t=0.5" for number in range(4)), "text/score"]
    assert said == ", t = 0.5 of 0.1, 0.3, 0.5, 0.7, 0.9"


@pytest.mark.parametrize("stages", [0, 2])
def test_curves_are_drawn(stages: int, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", "") as run:
        for stage in range(stages):
            for step in range(20):
                run.log({"stage": f"s{stage}", "step": step, "loss": 1.0, "text": 2.0 - 0.2 * step})
            run.log({"stage": f"s{stage}", "step": 20, "eval": {"text/score": 0.5}})
    drawn = RunFolder.open(tmp_path / "run")
    side_by_side, stacked = (curves(drawn, columns=columns) for columns in (2, 1))
    assert side_by_side.startswith(b"\x89PNG")
    assert height(stacked) == (2 if stages else 1) * height(side_by_side)
    assert draw_curves(tmp_path / "run").read_bytes() == side_by_side


def height(png: bytes) -> int:
    return int.from_bytes(png[20:24], "big")
