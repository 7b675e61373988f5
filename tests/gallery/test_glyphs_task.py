"""The task `glyphs`, put to answers that are known: all right, all wrong, right late, and right for another name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from colatent.checkpoint.run import RunFolder
from colatent.errors import UserError
from colatent.evaluate.intervals import wilson
from colatent_gallery.glyphs.faces import load_alphabet
from colatent_gallery.glyphs.settings import GlyphsTaskConfig
from colatent_gallery.glyphs.split import split_glyphs
from colatent_gallery.glyphs.task import PICTURE, GlyphsTask

ALPHABET = load_alphabet()
HELDOUT = {ALPHABET.names[number] for number in split_glyphs(0.1, 0)[1]}
KEYS = [f"{way}_{kind}_top" for way in ("name_to_glyph", "glyph_to_name") for kind in ("seen", "heldout")]


@dataclass(frozen=True)
class Made:
    item: Any


@dataclass
class Known:
    """In place of a model: `draw` gives a picture for a name, `call` a name for number of class and number of try."""

    draw: Callable[[str], np.ndarray]
    call: Callable[[int, int], str]
    codecs: ClassVar = {"text": None, "image": None}

    def generate_many(self, prompts: Sequence[Any], *, target: str, seed: int, n: int = 1) -> list[list[Made]]:
        if target == "image":
            return [[Made(self.draw(given.item)[None])] for (given,) in prompts]
        return [[Made(self.call(class_of(given.item), number)) for number in range(n)] for (given,) in prompts]


def class_of(picture: np.ndarray) -> int:
    return int(ALPHABET.classes_N[(ALPHABET.pictures_NHW == picture).all((1, 2)).argmax()])


def picture_of(name: str) -> np.ndarray:
    return ALPHABET.pictures_NHW[ALPHABET.names.index(name)]


def last_name(of: int) -> str:
    return ALPHABET.names[np.flatnonzero(ALPHABET.classes_N == of)[-1]]


def judge(model: Known, run: RunFolder | None = None, **settings: Any) -> Any:
    task = GlyphsTask(GlyphsTaskConfig(seen=40, **settings))
    return task.judge(model, run=run, seed=0, progress=lambda *_: None)  # type: ignore[arg-type]


def test_right_answers_count_in_full_and_any_name_of_a_class_is_right():
    verdict = judge(Known(picture_of, lambda of, _: last_name(of)))
    for key in KEYS:
        assert verdict.figures[f"{key}1"] == verdict.figures[f"{key}5"] == 1
    assert verdict.bounds["glyph_to_name_heldout_top1"] == wilson(102, 102)
    assert verdict.bounds["name_to_glyph_seen_top5"] == wilson(40, 40)
    assert verdict.figures["names"] > verdict.figures["pictures"]
    assert verdict.figures["very_name_cap"] == verdict.figures["pictures"] / verdict.figures["names"]
    assert set(verdict.goals.values()) == {0.9, 0.6}


def test_wrong_answers_count_as_none():
    blank = np.zeros((32, 32), dtype=np.float32)
    verdict = judge(Known(lambda name: blank, lambda of, _: "LATIN CAPITAL LETTER"))
    assert [verdict.figures[f"{key}1"] for key in KEYS[2:]] == [0, 0]
    assert [verdict.figures[f"{key}5"] for key in KEYS[2:]] == [0, 0]
    assert max(verdict.figures[f"{key}5"] for key in KEYS[:2]) < 0.3


def test_seen_and_held_out_are_told_apart_and_a_late_name_counts_as_top_five():
    def draw(name: str) -> np.ndarray:
        return 0.8 * picture_of(name) if name in HELDOUT else 1 - picture_of(name)

    verdict = judge(Known(draw, lambda of, number: last_name(of) if number == 4 else "ANOTHER"))
    assert verdict.figures["name_to_glyph_heldout_top1"] > 0.9
    assert verdict.figures["name_to_glyph_seen_top1"] < 0.1
    for key in KEYS[2:]:
        assert verdict.figures[f"{key}1"] == 0
        assert verdict.figures[f"{key}5"] == 1


def test_the_picture_of_answers_lies_in_the_run_and_in_the_page(tmp_path):
    with RunFolder.create(tmp_path / "run", CONFIG) as run:
        verdict = judge(Known(picture_of, lambda of, _: "A WRONG NAME"), run)
        stored = (run.samples / PICTURE).read_bytes()
    assert stored.startswith(b"\x89PNG")
    assert [part.data for part in verdict.sections[0].parts if hasattr(part, "data")] == [stored]
    tables = [part for section in verdict.sections[1:] for part in section.parts]
    assert [len(table.rows) for table in tables] == [0, 15, 0, 15]
    assert all(row[1] == "A WRONG NAME" for row in tables[3].rows)
    assert {row[0] for row in tables[3].rows} <= HELDOUT


def test_another_split_than_the_run_was_trained_on_is_refused(tmp_path):
    with (
        RunFolder.create(tmp_path / "run", CONFIG) as run,
        pytest.raises(UserError, match="is 3, and the run was trained with seed 0"),
    ):
        judge(Known(picture_of, lambda of, _: last_name(of)), run, seed=3)


def test_a_model_without_the_streams_or_of_other_pictures_is_refused():
    right = Known(picture_of, lambda of, _: last_name(of))
    with pytest.raises(UserError, match="lacks words or image"):
        judge(right, text="words")
    with pytest.raises(UserError, match=r"shape \(1, 16, 16\)"):
        judge(Known(lambda name: np.zeros((16, 16), np.float32), right.call))


CONFIG = """
name: glyphs
streams: {text: {codec: text}, image: {codec: image}}
data: {sources: {glyphs: {dataset: glyphs}}}
stages: {codec: {steps: 1}}
"""
