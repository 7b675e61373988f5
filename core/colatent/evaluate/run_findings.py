"""What stands out in a run's history, in plain sentences with their thresholds.

Each finding is a hint with one threshold of ours; the reasons are in docs/reports.md. Losses are compared by means over
tenths of what was logged, since a single step says little, and a rise counts only where it is more than chance.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from colatent.checkpoint.run import FINISHED
from colatent.evaluate.history import Points, StageHistory, levels, others
from colatent.evaluate.run_facts import FAILED, STOPPED, RunFacts
from colatent.latents.posterior import SCALE_RANGE

RISE = 1.1
"""A training loss has risen where it ends this many times above its lowest tenth."""
HELD_OUT_RISE = 1.05
FALL = 0.02
"""A held-out score (a share) has fallen where it ends this much under its best."""
PARTS = 10
TOTAL, FLOW = "loss", "/flow"


@dataclass(frozen=True, kw_only=True)
class RunFinding:
    """One thing that stands out.

    name   stable key
    where  the stage, stream or file that it is about
    text   what was seen, beside its threshold
    do     what to try
    """

    name: str
    where: str
    text: str
    do: str


Found = Iterator[tuple[str, str, str]]
"""Where, text, what to do."""


def run_findings(facts: RunFacts) -> list[RunFinding]:
    """All that stands out, what ended the run first."""
    return [
        RunFinding(name=name, where=where, text=text, do=do)
        for name, check in CHECKS.items()
        for where, text, do in check(facts)
    ]


def _not_finite(facts: RunFacts) -> Found:
    for stage, history in facts.history.stages.items():
        if history.broken:
            step = min(history.broken.values())
            names = ", ".join(name for name, at in history.broken.items() if at == step)
            yield (
                stage,
                f"not finite at step {step}: {names}",
                "lower lr or raise warmup, then --resume from the last checkpoint",
            )


def _stopped(facts: RunFacts) -> Found:
    if facts.state not in (STOPPED, FAILED):
        return
    open_stage = next((name for name, stage in facts.stages.items() if not stage.complete), None)
    where = "before its first step" if open_stage is None else f"in stage {open_stage} at {facts.stages[open_stage]}"
    saved = "nothing was saved" if facts.newest is None else f"its newest checkpoint is of step {facts.newest.step}"
    yield facts.name, f"the run stopped {where}; {saved}", "go on with colatent train CONFIG --resume"


def _rose(facts: RunFacts) -> Found:
    for stage, history in facts.history.stages.items():
        for name, points in history.logged.items():
            if name == TOTAL or name.endswith(FLOW):
                yield from _rise(stage, name, points)


def _rise(stage: str, name: str, points: Points) -> Found:
    if len(points) < 2 * PARTS:
        return
    bounds = [len(points) * part // PARTS for part in range(PARTS + 1)]
    tenths = [[value for _, value in points[start:end]] for start, end in pairwise(bounds)]
    means = [statistics.fmean(tenth) for tenth in tenths]
    lowest = min(range(PARTS), key=lambda place: means[place])
    chance = 2.0 * math.sqrt(sum(statistics.variance(tenth) / len(tenth) for tenth in (tenths[lowest], tenths[-1])))
    if means[lowest] > 0 and means[-1] > max(RISE * means[lowest], means[lowest] + chance):
        yield (
            stage,
            f"{name} rose from {means[lowest]:.3g} around step {points[bounds[lowest]][0]} to {means[-1]:.3g} in its "
            f"last tenth (more than {RISE:g} times)",
            "lower lr, raise warmup, or stop earlier",
        )


def _held_out_rose(facts: RunFacts) -> Found:
    for stage, history in facts.history.stages.items():
        for of, by_t in levels(history.scores).items():
            rises = {t: rise for t, points in by_t.items() if (rise := _worse(points)) > HELD_OUT_RISE}
            if rises:
                t = max(rises, key=lambda each: rises[each])
                step, low = min(by_t[t], key=lambda point: point[1])
                risen = ", ".join(f"{each:g}" for each in rises)
                yield (
                    f"{stage}, {of}",
                    f"the held-out loss at t = {risen} rose past {HELD_OUT_RISE:g} times its lowest: at t = {t:g} "
                    f"from {low:.3g} at step {step} to {by_t[t][-1][1]:.3g}",
                    "it learns its data by heart: train fewer steps, or on more data",
                )


def _worse(points: Points) -> float:
    """How many times above its lowest a loss ends."""
    low = min(value for _, value in points)
    return points[-1][1] / low if low > 0 else 1.0


def _fell(facts: RunFacts) -> Found:
    for stage, history in facts.history.stages.items():
        for name, points in _shares(history):
            step, best = max(points, key=lambda point: point[1])
            if best - points[-1][1] > FALL:
                yield (
                    stage,
                    f"held-out {name} fell from {best:.3f} at step {step} to {points[-1][1]:.3f} (more than {FALL:g})",
                    "lower lr, or keep the codec as it was",
                )


def _shares(history: StageHistory) -> Iterator[tuple[str, Points]]:
    return ((name, points) for name, points in others(history.scores).items() if name.endswith("_score"))


def _off_scale(facts: RunFacts) -> Found:
    low, high = SCALE_RANGE
    for stream, codec in facts.codecs.items():
        if codec.std is not None and not low <= codec.std <= high:
            yield (
                stream,
                f"latents are off scale: std {codec.std:.2f}, expected {low:g} to {high:g}",
                "measure the scale again: train stage codec on data like these",
            )


def _damaged(facts: RunFacts) -> Found:
    for stage, found in facts.checkpoints.items():
        for one in found.skipped:
            reason = one.reason.replace(f"{one.path}/", "").partition("; ")[0]
            yield f"{stage}/{one.path.name}", f"is no valid checkpoint: {reason}", "leave it, an older one is used"


def _torn(facts: RunFacts) -> Found:
    # While a run writes, or where it was killed, its last line may be half of one.
    allowed = 0 if facts.state == FINISHED else 1
    if facts.history.torn > allowed:
        yield "metrics.jsonl", f"{facts.history.torn} lines cannot be read", "curves have gaps there, nothing else has"


CHECKS: dict[str, Callable[[RunFacts], Found]] = {
    "not_finite": _not_finite,
    "stopped": _stopped,
    "off_scale": _off_scale,
    "damaged_checkpoint": _damaged,
    "loss_rose": _rose,
    "held_out_loss_rose": _held_out_rose,
    "score_fell": _fell,
    "torn_metrics": _torn,
}
