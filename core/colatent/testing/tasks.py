"""The checks of a task: it resolves, and its class can judge. What it says of a model is for its own tests."""

from __future__ import annotations

from typing import Any

from colatent.testing.declaration import check_round_trip, check_words
from colatent.testing.requiring import check_closed, require
from colatent.testing.running import check
from colatent.testing.subject import TaskSubject
from colatent.testing.surface import check_call


class Judge:
    """`judge` as `evaluate/tasks.py:Task` has it, which this room may not import; a test compares them."""

    def judge(self, model: Any, *, run: Any, seed: int, progress: Any) -> Any: ...


@check(vital=True)
def config(subject: TaskSubject) -> None:
    """The settings are frozen and refuse unknown keys."""
    check_closed(subject.model)


@check()
def metadata(subject: TaskSubject) -> None:
    """The declaration has a summary of one line, and its demonstration, if it has one, is there."""
    check_words(summary=subject.info.summary, fields=())
    demo = subject.found.demos().get(subject.info.name)
    require(demo is None or demo.is_file(), f"demo {subject.info.demo!r} is no file")


@check(vital=True)
def class_(subject: TaskSubject) -> None:
    """The class builds, and its method `judge` takes the contract's arguments."""
    require(callable(getattr(subject.build(), "judge", None)), "lacks judge")
    check_call(subject.found.task_class(subject.info.name), "judge", Judge)


@check()
def config_round_trip(subject: TaskSubject) -> None:
    """The settings come back equal from JSON and from YAML."""
    subject.build()
    check_round_trip(subject.model())
