"""The learning rate of every step, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colatent.config import load
from colatent.config.stages import StageConfig
from colatent.errors import UserError
from colatent.train.optimiser import learning_rate
from plugins_for_tests.runs import TEXT, metrics, run

WSD = "stages.prior.schedule=wsd"


def rates(**settings: Any) -> list[float]:
    """Of a stage of ten steps, at a peak of 8."""
    config = StageConfig(steps=10, lr=8.0, **settings)
    return [learning_rate(config, step) for step in range(config.steps)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant", "warmup": 4}, [2, 4, 6, 8, 8, 8, 8, 8, 8, 8]),
        ({"schedule": "constant", "warmup": 0}, [8] * 10),
        ({"schedule": "constant", "warmup": 16}, [0.5 * step for step in range(1, 11)]),
        # Half a cosine over the six steps after the warm-up: 4 + 4 cos(0, 30, ..., 150 degrees).
        ({"warmup": 4}, [2, 4, 6, 8, 8, 4 + 2 * 3**0.5, 6, 4, 2, 4 - 2 * 3**0.5]),
        ({"schedule": "wsd", "warmup": 4, "decay": 0.4}, [2, 4, 6, 8, 8, 8, 8, 6, 4, 2]),
        ({"schedule": "wsd", "warmup": 2}, [4, 8, 8, 8, 8, 8, 8, 8, 8, 4]),
        ({"schedule": "wsd", "warmup": 2, "min_lr": 4.0, "decay": 0.4}, [4, 8, 8, 8, 8, 8, 8, 7, 6, 5]),
        ({"schedule": "wsd", "warmup": 2, "decay": 1.0}, [4, 8, 8, 7, 6, 5, 4, 3, 2, 1]),
        ({"schedule": "wsd", "warmup": 0, "decay": 0.01}, [8] * 10),
        ({"schedule": "wsd", "warmup": 16}, [0.5 * step for step in range(1, 11)]),
    ],
)
def test_rates_are_those_worked_out_by_hand(settings: dict[str, Any], expected: list[float]) -> None:
    assert rates(**settings) == pytest.approx(expected, rel=1e-12)


def test_a_run_logs_the_rates_of_its_schedule(tmp_path: Path) -> None:
    folder = run(TEXT, tmp_path / "run", WSD, "stages.prior.decay=0.5", "stages.prior.lr=4.0e-3")
    found = [one["lr"] for one in metrics(folder) if one["stage"] == "prior" and "lr" in one]
    assert found == pytest.approx([2e-3, 4e-3, 4e-3, 4e-3, 4e-3, 3e-3, 2e-3, 1e-3], rel=1e-12)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["stages.prior.decay=0.1"], r"stages\.prior\.decay has no effect with schedule cosine: take it out"),
        (
            ["stages.codec.schedule=constant", "stages.codec.min_lr=0.1"],
            r"stages\.codec\.min_lr has no effect with schedule constant: take it out",
        ),
        ([WSD, "stages.prior.decay=0"], r"stages\.prior\.decay"),
        ([WSD, "stages.prior.decay=1.1"], r"stages\.prior\.decay"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(overrides: list[str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load(Path(__file__).parents[2] / "examples" / "configs" / "tiny.yaml", overrides)
