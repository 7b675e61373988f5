"""The task contract: what judges a finished model, and what comes of it.

A task knows what its material means, so it lives in a plugin; the core only builds it, hands it a model and keeps what
it says. A task shares nothing with the model that it judges: it fits, measures or parses on real material alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from colatent.checkpoint.run import RunFolder
from colatent.config.checks import validate
from colatent.evaluate.page import Section
from colatent.plugins.pluginset import PluginSet

if TYPE_CHECKING:
    from colatent.generate.model import Model

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many of it are done, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a task says of a model.

    figures   numbers by name, for programs as for people
    bounds    the interval of a figure, (low, high), where it has one
    goals     the least that a figure should be, where it has a goal
    sections  what a page shows of it
    """

    figures: Mapping[str, float]
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    goals: Mapping[str, float] = field(default_factory=dict)
    sections: Sequence[Section] = ()

    def __post_init__(self) -> None:
        assert (self.bounds.keys() | self.goals.keys()) <= self.figures.keys()


@runtime_checkable
class Task(Protocol):
    """A judge of finished models. Built as `Class(config)`."""

    def judge(self, model: Model, *, run: RunFolder | None, seed: int, progress: Progress) -> Verdict:
        """Judge `model`. Raises `UserError` where it is not a model that this task can judge.

        run   the run that the model lies in, None where it lies in none
        seed  all of the task's randomness hangs on it, that of samples included
        """
        ...


def build_tasks(wanted: Mapping[str, Mapping[str, Any]], plugins: PluginSet) -> dict[str, Task]:
    """Tasks by name, built with their settings. Raises `UserError` for what could be told before there is a model."""
    built: dict[str, Task] = {}
    for name, settings in wanted.items():
        where = f"tasks.{name}"
        cls = plugins.task_class(name, where=where)
        built[name] = cls(validate(plugins.task_config(name), settings, where=where))
    return built
