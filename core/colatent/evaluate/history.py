"""What a run logged, read once and put in order: by stage, by name, over steps.

The file may be under way, or end in the middle of a line. So nothing here insists: a record without a stage or a step
is passed over, and values that no curve can show (not finite) are kept apart, since they say why a run ended. A step
that training skipped, and went on from, is only counted: it is no point of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from colatent.checkpoint.metrics import SKIPPED
from colatent.checkpoint.run import METRICS, RunFolder

Points = list[tuple[int, float]]
Series = dict[str, Points]

LARGEST = 2**63
MARK = "/t="
"""Stands before the t in the name of a held-out loss at fixed t."""


@dataclass(frozen=True, kw_only=True)
class StageHistory:
    """One stage.

    logged  numbers of training steps by name: losses, learning rate, ..., and how many steps were skipped
    scores  on held-out samples
    broken  values that are not finite: name -> step
    """

    logged: Series = field(default_factory=dict)
    scores: Series = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)

    def last_step(self) -> int:
        """The last step that anything is known of."""
        return max((points[-1][0] for series in (self.logged, self.scores) for points in series.values()), default=0)


@dataclass(frozen=True, kw_only=True)
class History:
    """A whole run: stages in the order of the file, and how many of its lines are torn."""

    stages: Mapping[str, StageHistory]
    torn: int = 0


def read_history(run: RunFolder) -> History:
    """What a run has logged so far; nothing where it has not begun to."""
    records, path = list(run.metrics()), run.path / METRICS
    lines = path.read_bytes().splitlines() if path.exists() else []
    return History(stages=by_stage(records), torn=max(0, sum(map(bool, lines)) - len(records)))


def by_stage(records: Iterable[Mapping[str, Any]]) -> dict[str, StageHistory]:
    """Records in order of stages and names."""
    stages: dict[str, StageHistory] = {}
    for record in records:
        stage, step, scores = record.get("stage"), record.get("step"), record.get("eval")
        if not isinstance(stage, str) or not _is_number(step) or not isinstance(step, int):
            continue
        found = stages.setdefault(stage, StageHistory())
        rest = {name: value for name, value in record.items() if name not in ("step", "eval")}
        rest = {SKIPPED: record[SKIPPED]} if SKIPPED in record else rest
        _add(found, found.logged, step, rest)
        _add(found, found.scores, step, scores if isinstance(scores, Mapping) else {})
    return stages


def _add(stage: StageHistory, series: Series, step: int, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not _is_number(value):
            continue
        if math.isfinite(value):
            series.setdefault(name, []).append((step, float(value)))
        else:
            stage.broken.setdefault(name, step)


def _is_number(value: Any) -> bool:
    """Whether a value is a number of the size that a run logs: a whole one in JSON may be too large to compute with."""
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST)


def levels(scores: Series) -> dict[str, dict[float, Points]]:
    """Held-out losses at fixed t: what they are of -> t -> points, t rising."""
    found: dict[str, dict[float, Points]] = {}
    for name, points in scores.items():
        of, mark, t = name.rpartition(MARK)
        with suppress(ValueError):
            if mark:
                found.setdefault(of, {})[float(t)] = points
    return {of: dict(sorted(by_t.items())) for of, by_t in found.items() if by_t}


def others(scores: Series) -> Series:
    """Held-out scores that are not losses at fixed t."""
    return {name: points for name, points in scores.items() if MARK not in name}
