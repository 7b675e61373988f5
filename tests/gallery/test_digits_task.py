"""The task `digits` on models whose worth is known: its judges must find it, and what it says must be whole."""

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
from colatent_gallery.digits.directions import DIRECTIONS
from colatent_gallery.digits.settings import DigitsTaskConfig
from colatent_gallery.digits.task import DigitsTask
from colatent_gallery.digits.twin import cost_of_mixing
from plugins_for_tests.digits_stub import StubModel

NAMES = [each.name for each in DIRECTIONS]


def knows(digit: int, rng: np.random.Generator) -> int:
    return digit


def guesses(digit: int, rng: np.random.Generator) -> int:
    return int(rng.integers(10))


def judge(model: Any, *, run: RunFolder | None = None, seed: int = 0, **settings: Any) -> Verdict:
    task = DigitsTask(DigitsTaskConfig(**settings))
    assert isinstance(task, Task)
    return task.judge(model, run=run, seed=seed, progress=lambda what, done, total: None)


@pytest.fixture(scope="module")
def perfect() -> Verdict:
    return judge(StubModel(knows))


def test_a_perfect_model_is_found_perfect(perfect: Verdict) -> None:
    assert [perfect.figures[name] for name in NAMES] == [1.0] * 5
    assert perfect.goals == dict(zip(NAMES, (0.95, 0.95, 0.98, 0.98, 0.90), strict=True))
    assert all(perfect.bounds[name] == pytest.approx((0.9812, 1.0), abs=1e-4) for name in NAMES)
    assert 0.9 < perfect.figures["variety"] < 1.1
    assert perfect.figures["nearest_generated"] == 0.0  # it copies, and that is said
    assert 0.5 < perfect.figures["nearest_real"] < 3.0
    assert [perfect.figures[f"judge_{field}"] for field in ("text", "audio")] == [1.0, 1.0]
    assert 0.97 < perfect.figures["judge_image"] <= 1.0


def test_a_model_that_guesses_is_at_chance() -> None:
    figures = judge(StubModel(guesses)).figures
    assert all(0.04 < figures[name] < 0.17 for name in NAMES)


def test_one_picture_for_each_digit_has_no_variety() -> None:
    figures = judge(StubModel(knows, same=True)).figures
    assert figures["text_to_image"] == 1.0
    assert figures["variety"] == figures["variety_7"] == 0.0


def test_the_page_shows_all_of_it(perfect: Verdict) -> None:
    parts = [part for section in perfect.sections for part in section.parts]
    tables = [part for part in parts if isinstance(part, Confusion)]
    assert [sum(map(sum, table.counts)) for table in tables] == [200] * 5
    assert all(row[digit] == sum(row) for table in tables for digit, row in enumerate(table.counts))
    drawn, played, *_ = (part for part in parts if isinstance(part, Grid))
    assert [len(cells) for _, cells in drawn.rows] == [12] * 10
    assert [len(cells) for _, cells in played.rows] == [2] * 10
    assert not any(cell.wrong for part in parts if isinstance(part, Grid) for _, cells in part.rows for cell in cells)


@pytest.mark.parametrize("samples", [1, 7, 33])
def test_few_samples_are_shown_as_far_as_they_go(samples: int) -> None:
    verdict = judge(StubModel(knows), samples=samples)
    for part in (part for section in verdict.sections for part in section.parts):
        if isinstance(part, Grid):
            widths = {len(cells) for _, cells in part.rows}
            assert len(widths) <= 1
            assert not part.head or not widths or widths == {sum(count for _, count in part.head)}


def test_a_caption_that_comes_again_has_noise_of_its_own() -> None:
    model = StubModel(knows, streams=("text", "image"))
    judge(model, samples=40, seed=3)
    assert model.calls == [3, 4, 3]  # captions, those that came again, scans


def test_a_model_of_two_modalities_is_judged_on_those() -> None:
    figures = judge(StubModel(knows, streams=("text", "audio")), samples=20).figures
    assert {name for name in figures if "_to_" in name} == {"text_to_audio", "audio_to_text"}
    assert "variety" not in figures
    with pytest.raises(UserError, match=r"this model \(streams: text\) has no two of text, image, audio; name its"):
        judge(StubModel(knows, streams=("text",)))


def test_what_cannot_be_judged_is_told() -> None:
    with pytest.raises(UserError, match=r"task 'digits', samples: is 400, and 359 scans are held out"):
        judge(StubModel(knows), samples=400)
    model = StubModel(knows)
    model._item = lambda *_: np.zeros((3, 8, 8))  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"a picture has the shape \(3, 8, 8\), and scans have \(1, 8, 8\)"):
        judge(model, samples=20)


CONFIG = """
name: {name}
streams: {{text: {{codec: text}}}}
data: {{sources: {{words: {{dataset: digits, config: {{heldout: {heldout}}}}}}}}}
stages: {{prior: {{steps: 1}}}}
"""


def a_run(path: Path, *, heldout: float = 0.2, losses: dict[str, float] | None = None) -> RunFolder:
    with RunFolder.create(path, CONFIG.format(name="x", heldout=heldout)) as run:
        for step, share in ((0, 2.0), (9, 1.0)):
            found = {name: share * value for name, value in (losses or {}).items()}
            run.log({"stage": "prior", "step": step, "eval": found})
    return RunFolder.open(path)


def test_other_material_than_the_runs_is_refused(tmp_path: Path) -> None:
    model = StubModel(knows, streams=("text", "audio"))
    assert judge(model, run=a_run(tmp_path / "a"), samples=10)
    with pytest.raises(UserError, match=r"heldout: is 0.2, and the run was trained with heldout 0.3"):
        judge(model, run=a_run(tmp_path / "b", heldout=0.3), samples=10)


def test_a_twin_shows_what_mixing_costs(tmp_path: Path) -> None:
    run = a_run(tmp_path / "mixed", losses={"names/text/t=0.1": 1.0, "names/text/t=0.9": 2.1, "draw/image/t=0.1": 9.0})
    a_run(tmp_path / "alone", losses={"names/text/t=0.1": 1.0, "names/text/t=0.9": 2.0})
    verdict = judge(StubModel(knows, streams=("text", "audio")), run=run, samples=10, twin=str(tmp_path / "alone"))
    assert verdict.figures["mixing_names/text"] == pytest.approx(3.1 / 3.0)
    assert "What mixing costs" in [section.title for section in verdict.sections]
    a_run(tmp_path / "other", losses={"plays/text/t=0.1": 1.0})
    with pytest.raises(UserError, match=r"has no source in common"):
        cost_of_mixing(run, str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"has no held-out flow losses"):
        cost_of_mixing(run, str(a_run(tmp_path / "none").path))
    with pytest.raises(UserError, match=r"lies in no run folder"):
        cost_of_mixing(None, str(tmp_path / "alone"))


def test_figures_are_plain_numbers(perfect: Verdict) -> None:
    assert json.loads(json.dumps(dict(perfect.figures))) == perfect.figures


def test_a_twin_that_is_no_run_is_told_before_anything_is_judged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        DigitsTask(DigitsTaskConfig(twin=str(tmp_path)))


def test_the_demonstration_is_the_example_and_its_twin_shares_its_text() -> None:
    examples = Path(__file__).parents[2] / "examples" / "configs"
    packaged = load_plugins().demos()["digits"]
    assert packaged.read_text() == (examples / "digits.yaml").read_text()
    mixed, alone = load(packaged).config, load(examples / "digits-text-only.yaml").config
    assert {name: stream.codec for name, stream in alone.streams.items()} == {"text": mixed.streams["text"].codec}
    assert alone.streams["text"].weights == f"runs/{mixed.name}"
    assert alone.data.sources.items() <= mixed.data.sources.items()
    of_text = {name: law for name, law in mixed.flow.times.items() if name in alone.streams}
    assert alone.flow == mixed.flow.model_copy(update={"times": of_text})
    assert (alone.prior, alone.seed) == (mixed.prior, mixed.seed)
    weights = {name: source.weight for name, source in mixed.data.sources.items()}
    share = sum(weights[name] for name in alone.data.sources) / sum(weights.values())
    assert alone.stages["prior"].steps == pytest.approx(share * mixed.stages["prior"].steps, rel=0.02)
