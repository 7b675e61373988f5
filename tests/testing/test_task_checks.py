"""The checks of a task: a right one passes them all, and each catches a planted slip."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace

import pytest
from pydantic import BaseModel, ConfigDict

from colatent.config.schema import Settings
from colatent.evaluate.tasks import Task
from colatent.plugins import Candidate, PluginSet, TaskInfo, hookimpl, load_plugins
from colatent.testing import TASK_CHECKS, check_task, examine
from colatent.testing.tasks import Judge


class RightConfig(Settings):
    """Nothing to set."""

    names: tuple[str, ...] = ("a",)


class Right:
    """Judges nothing."""

    def __init__(self, config: RightConfig) -> None:
        self.config = config

    def judge(self, model: object, *, run: object, seed: int, progress: object) -> None:
        """Never called here."""


class Mute:
    """Cannot judge."""

    def __init__(self, config: RightConfig) -> None:
        self.config = config


class Deaf:
    """Judges without what it is told."""

    def __init__(self, config: RightConfig) -> None:
        self.config = config

    def judge(self, model: object) -> None:
        """Never called here."""


class OpenConfig(BaseModel):
    """Takes any key."""

    model_config = ConfigDict(frozen=True)


class Forgets(RightConfig):
    """Settings that another reading changes."""

    def model_dump(self, **_: object) -> dict[str, object]:
        return {}


class ForgetsConfig(Forgets):
    """Its default is another one each time."""

    def __init__(self, **values: object) -> None:
        super().__init__(**{"names": (str(id(self)),), **values})


class NeedyConfig(Settings):
    """Cannot do without a setting."""

    path: str


RIGHT = TaskInfo(name="right", factory=f"{__name__}:Right", config=f"{__name__}:RightConfig", summary="Judges nothing")


def plugins(info: TaskInfo) -> PluginSet:
    """A plugin that declares one task."""

    class Plugin:
        @hookimpl
        def colatent_tasks(self) -> Iterable[TaskInfo]:
            return [info]

    return load_plugins([Candidate(name="trial", distribution="trials", version="1", target=Plugin())])


def test_a_right_task_passes_every_check() -> None:
    results = check_task(plugins(RIGHT), "right")
    assert [(each.name, each.state) for each in results] == [(check.name, "passed") for check in TASK_CHECKS]
    assert [one.title for name in ("trial", "right") for one in examine(plugins(RIGHT), name)] == ["task right"] * 2


FAULTS = {
    "config": (replace(RIGHT, config=f"{__name__}:OpenConfig"), "unknown keys are accepted"),
    "metadata": (replace(RIGHT, demo="colatent_text:none.yaml"), "demo 'colatent_text:none.yaml' is no file"),
    "class": (replace(RIGHT, factory=f"{__name__}:Mute"), "lacks judge"),
    "config-round-trip": (replace(RIGHT, config=f"{__name__}:ForgetsConfig"), "names is another one after JSON"),
}


@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.name)
def test_each_check_catches_its_planted_fault(check) -> None:
    info, says = FAULTS[check.name]
    (examination,) = examine(plugins(info), "right")
    result = examination.result(check.name)
    assert (result.state, says in result.detail) == ("failed", True), result


def test_the_arguments_are_those_of_the_contract() -> None:
    kinds = [
        [(each.name, each.kind, each.default) for each in inspect.signature(protocol.judge).parameters.values()]
        for protocol in (Task, Judge)
    ]
    assert kinds[0] == kinds[1]


def test_a_judge_that_takes_other_arguments_is_caught() -> None:
    (examination,) = examine(plugins(replace(RIGHT, factory=f"{__name__}:Deaf")), "right")
    says = "judge(model) is not called as judge(model, *, run, seed, progress): "
    assert examination.result("class").detail.startswith(says)


def test_a_task_that_needs_settings_says_which() -> None:
    results = check_task(plugins(replace(RIGHT, config=f"{__name__}:NeedyConfig")), "right")
    assert {each.detail for each in results if each.state == "skipped"} == {"cannot be built without path"}
