"""The task `spoken-digits` on models whose worth is known: its judges must find it, and what it says must be whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colatent.checkpoint.run import RunFolder
from colatent.config import load
from colatent.errors import UserError
from colatent.evaluate.page import Confusion, Grid
from colatent.evaluate.tasks import Task, Verdict
from colatent.plugins import load_plugins
from colatent_gallery.speech.settings import SpokenDigitsTaskConfig
from colatent_gallery.speech.task import SpokenDigitsTask
from plugins_for_tests.speech_stub import StubCodec, StubModel, takes, write_archive

NAMES = ("reconstruction", "text_to_audio", "audio_to_text", "real")


def knows(digit: int, rng: np.random.Generator) -> int:
    return digit


def guesses(digit: int, rng: np.random.Generator) -> int:
    return int(rng.integers(10))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> SpokenDigitsTask:
    path = write_archive(tmp_path_factory.mktemp("speech") / "spoken.tar.gz", takes(7))
    return SpokenDigitsTask(SpokenDigitsTaskConfig(path=str(path), samples=100))


def judge(task: SpokenDigitsTask, answer: Any, *, run: RunFolder | None = None, **more: Any) -> Verdict:
    known = [(one.sound, one.digit) for one in task.test]
    model: Any = StubModel(answer, known=known, **{"codec": StubCodec(), **more})
    return task.judge(model, run=run, seed=0, progress=lambda what, done, total: None)


@pytest.fixture(scope="module")
def perfect(task: SpokenDigitsTask) -> Verdict:
    return judge(task, knows)


def test_a_perfect_model_is_found_perfect(task: SpokenDigitsTask, perfect: Verdict) -> None:
    assert isinstance(task, Task)
    assert dict(perfect.figures) == dict.fromkeys(NAMES, 1.0)
    assert perfect.goals == {"reconstruction": 0.95, "text_to_audio": 0.85, "audio_to_text": 0.85}
    assert all(perfect.bounds[name] == pytest.approx((0.9630, 1.0), abs=1e-4) for name in NAMES)
    assert json.loads(json.dumps(dict(perfect.figures))) == perfect.figures


def test_a_model_that_guesses_is_at_chance(task: SpokenDigitsTask) -> None:
    figures = judge(task, guesses).figures
    assert all(0.02 < figures[name] < 0.2 for name in ("text_to_audio", "audio_to_text"))
    assert figures["real"] == figures["reconstruction"] == 1.0


def test_what_a_codec_spoils_is_found(task: SpokenDigitsTask) -> None:
    figures = judge(task, knows, codec=StubCodec(np.zeros_like)).figures
    assert figures["reconstruction"] == 0.0
    assert figures["text_to_audio"] == 1.0


def test_the_page_shows_all_of_it(task: SpokenDigitsTask, perfect: Verdict) -> None:
    parts = [part for section in perfect.sections for part in section.parts]
    tables = [part for part in parts if isinstance(part, Confusion)]
    assert [sum(map(sum, table.counts)) for table in tables] == [100] * 4
    assert all(row[digit] == sum(row) for table in tables for digit, row in enumerate(table.counts))
    grids = [part for part in parts if isinstance(part, Grid)]
    assert [len(cells) for grid in grids for _, cells in grid.rows] == [4] * 10 + [3] * 20
    assert not any(cell.wrong for grid in grids for _, cells in grid.rows for cell in cells)
    wrong = judge(task, lambda digit, rng: (digit + 1) % 10)
    said, written = [part for section in wrong.sections for part in section.parts if isinstance(part, Grid)][1:]
    assert all(cell.wrong for grid in (said, written) for _, cells in grid.rows for cell in cells)


def test_a_sound_that_ended_before_it_began_is_wrong_and_shown_as_such(task: SpokenDigitsTask) -> None:
    verdict = judge(task, knows, codec=StubCodec(lambda sound: sound[:0]))
    assert verdict.figures["reconstruction"] == 0.0
    rebuilt = next(part for section in verdict.sections for part in section.parts if isinstance(part, Grid))
    made = [cell for _, cells in rebuilt.rows for cell in cells[1::2]]
    assert all(cell.wrong and cell.shown.data == b"no sound" for cell in made)


def test_few_samples_are_shown_as_far_as_they_go(task: SpokenDigitsTask) -> None:
    few = SpokenDigitsTask(task.config.model_copy(update={"samples": 3}))
    assert judge(few, knows).figures["text_to_audio"] == 1.0


def test_what_cannot_be_judged_is_told(task: SpokenDigitsTask) -> None:
    with pytest.raises(UserError, match=r"task 'spoken-digits', samples: is 101, and 100 recordings are held out"):
        SpokenDigitsTask(task.config.model_copy(update={"samples": 101}))
    with pytest.raises(UserError, match=r"this model \(streams: text\) has no stream audio; name its streams"):
        judge(task, knows, streams=("text",))


CONFIG = """
name: x
streams: {{text: {{codec: text}}}}
data: {{sources: {{say: {{dataset: spoken-digits, config: {{path: a, heldout: {heldout}}}}}}}}}
stages: {{prior: {{steps: 1}}}}
"""


def test_other_takes_than_the_runs_are_refused(task: SpokenDigitsTask, tmp_path: Path) -> None:
    for heldout in (5, 3):
        with RunFolder.create(tmp_path / str(heldout), CONFIG.format(heldout=heldout)):
            pass
    assert judge(task, knows, run=RunFolder.open(tmp_path / "5"))
    with pytest.raises(UserError, match=r"heldout: is 5, and the run was trained with heldout 3"):
        judge(task, knows, run=RunFolder.open(tmp_path / "3"))


def test_the_example_holds_out_what_is_judged() -> None:
    config = load(Path(__file__).parents[2] / "examples" / "configs" / "spoken-digits.yaml").config
    found = load_plugins()
    judged = found.task_config("spoken-digits").model_validate(config.tasks["spoken-digits"])
    for source in config.data.sources.values():
        trained = found.dataset_config("spoken-digits").model_validate(source.config)
        assert (trained.path, trained.heldout) == (judged.path, judged.heldout)
    assert judged.samples == 200
