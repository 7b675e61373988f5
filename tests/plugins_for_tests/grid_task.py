"""A task for the pictures of `grid`, as a third party would bring one: whether a caption's pattern can be seen."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from pydantic import PositiveInt

from colatent.checkpoint.run import RunFolder
from colatent.config.schema import Settings
from colatent.errors import UserError
from colatent.evaluate.page import Cell, Confusion, Grid, Prose, Section, shown
from colatent.evaluate.tasks import Progress, Verdict
from colatent.generate.model import Model
from colatent.generate.requests import Given
from colatent.plugins import Candidate, PluginSet, TaskInfo, hookimpl, load_plugins
from plugins_for_tests.grid import PATTERNS, picture

HERE = "plugins_for_tests.grid_task"


class PatternsConfig(Settings):
    """How many pictures of each pattern."""

    count: PositiveInt = 2


class Patterns:
    """The nearest clean picture to each generated one."""

    def __init__(self, config: PatternsConfig) -> None:
        self.config = config

    def judge(self, model: Model, *, run: RunFolder | None, seed: int, progress: Progress) -> Verdict:
        if "grid" not in model.codecs:
            raise UserError("draws no pictures", where="task 'patterns'", do="judge a model with a stream 'grid'")
        prompts = [[Given("text", f"{name} 2x2")] for name in PATTERNS]
        found = model.generate_many(
            prompts, target="grid", n=self.config.count, seed=seed, progress=partial(progress, "pictures")
        )
        items = [[one.item for one in some] for some in found]
        judged = [[self._nearest(item) for item in some] for some in items]
        right = sum(some.count(number) for number, some in enumerate(judged))
        cells = [[Cell(shown=shown(model.codecs["grid"], item)) for item in some] for some in items]
        counts = [[some.count(number) for number in range(len(PATTERNS))] for some in judged]
        parts = [
            Prose(text="<b>not bold</b>"),
            Grid(rows=list(zip(PATTERNS, cells, strict=True))),
            Confusion(rows=list(PATTERNS), columns=list(PATTERNS), counts=counts),
        ]
        return Verdict(
            figures={"right": right / (len(PATTERNS) * self.config.count), "seed": float(seed)},
            goals={"right": 2.0},
            sections=[Section(title="Pictures", parts=parts)],
        )

    def _nearest(self, item: Any) -> int:
        return int(np.argmin([np.abs(item - picture(name, 2, 2)).sum() for name in PATTERNS]))


@hookimpl
def colatent_tasks() -> Iterable[TaskInfo]:
    """The task."""
    return [TaskInfo(name="patterns", factory=f"{HERE}:Patterns", config=f"{HERE}:PatternsConfig")]


def plugins_with_task() -> PluginSet:
    """The text plugin, the pictures, and this one."""
    targets = {"text": "colatent_text.plugin", "grid": "plugins_for_tests.grid", "patterns": HERE}
    candidates = [
        Candidate(name=name, distribution="colatent" if name == "text" else name, version="1", target=target)
        for name, target in targets.items()
    ]
    return load_plugins(candidates)
