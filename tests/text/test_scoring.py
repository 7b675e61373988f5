"""The published scores to the digit, each rule of the protocol on texts whose right answer is plain, and bad files.

The published outputs lie in ../shared/data/cola_eval beside the checkout; without them the tests that need them are
skipped. Everything else needs no file.
"""

from __future__ import annotations

import difflib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from colatent.cli.main import main
from colatent.evaluate.intervals import Z, wilson
from colatent_text.scoring.command import NAMES
from colatent_text.scoring.protocol import (
    RULES,
    SIMILAR,
    TASKS,
    Reading,
    _similarity,
    cut,
    judge,
    normalise,
    read_answer,
)
from colatent_text.scoring.records import read_records
from colatent_text.scoring.report import exact_match, score, token_f1

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cola_eval"
ANIMALS = ("a dog", "the cat", "two birds", "a catfish")


def published(task: str) -> Path:
    path = PUBLISHED / f"{task}.jsonl"
    if not path.is_file():
        pytest.skip(f"the published outputs are not beside the checkout: {path}")
    return path


def written(folder: Path, *records: Any) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in records))
    return path


def scored(folder: Path, task: str, *records: Any) -> dict[str, Any]:
    """The figures of these records, as the command prints them."""
    path = written(folder, *records)
    return dict(vars(score(read_records(path, task), task)))


def answer(generate: Any, ground_truth: Any, choices: Any = ANIMALS) -> dict[str, Any]:
    return {"generate": generate, "ground_truth": ground_truth, "choices": choices, "prompt": "extra fields pass"}


# The published figures.


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("lambada", {"accuracy": 50.80, "correct": 508, "count": 1000, "with_choices": 0, "chance": None}),
        ("squad", {"accuracy": 30.90, "correct": 309, "count": 1000, "exact_match": 33.6, "f1": 45.25}),
        ("mmlu", {"accuracy": 19.30, "correct": 193, "named": 77.7, "accuracy_named": 24.84, "chance": 25.0}),
        ("obqa", {"accuracy": 23.00, "correct": 115, "named": 85.2, "accuracy_named": 27.0, "chance": 25.0}),
    ],
)
def test_published_scores(task: str, expected: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "score", str(published(task)), "--task", task, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {key: figures[key] for key in expected} == expected
    low, high = figures["interval"]
    assert low < figures["accuracy"] < high


@pytest.mark.parametrize(
    ("task", "named_by"),
    [
        ("mmlu", {"letter": 51, "equal": 656, "contained": 23, "similar": 47}),
        ("obqa", {"letter": 0, "equal": 411, "contained": 2, "similar": 13}),
    ],
)
def test_which_rules_name_the_options_of_published_answers(task: str, named_by: dict[str, int]) -> None:
    assert score(read_records(published(task), task), task).named_by == named_by


# The rules.


@pytest.mark.parametrize(
    ("text", "option", "rule"),
    [
        (" B", 1, "letter"),
        ("b.", 1, "letter"),
        ("(C)", 2, "letter"),
        ("[ d ]", 3, "letter"),
        ("The answer is B", 1, "letter"),
        ("Answer: (c), since they fly", 2, "letter"),
        ("not option A but option D.", 3, "letter"),
        ("choice=c", 2, "letter"),
        ("I would say (B) here", 1, "letter"),
        ("(A) or rather (B)", 1, "letter"),
        ("The Cat!", 1, "equal"),
        ("  a   DOG ", 0, "equal"),
        ("The final answer is the cat", 1, "equal"),
        ("The correct option is two birds", 2, "equal"),
        ("it must be two birds", 2, "contained"),
        ("neither; answer: it is a dog", 0, "contained"),
        ("half a doghouse", 0, "contained"),
        ("two bird", 2, "similar"),
        ("thee cat", 1, "similar"),
        ("The answer is a horse", 0, "letter"),  # as published: nothing fits "a horse", so "a" is the letter
    ],
)
def test_an_option_is_read(text: str, option: int, rule: Any) -> None:
    assert read_answer(text, ANIMALS) == Reading(option=option, rule=rule)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ... ",
        "E",  # no such option
        "(E)",
        "option Zebra",
        "B is what I would say",  # a letter, but neither alone nor announced nor bracketed
        "a text of more than forty characters with (B) in it",
        "a dog or two birds",  # two are contained
        "dog",  # the option is not in the text, though the text is in the option
        "three fishes",
    ],
)
def test_no_option_is_read(text: str) -> None:
    assert read_answer(text, ANIMALS) is None


def test_rules_are_tried_in_order() -> None:
    assert read_answer("(B)", ("b", "x")) == Reading(option=1, rule="letter")
    assert read_answer("red", ("a red car", "red", "re")) == Reading(option=1, rule="equal")
    assert read_answer("abcdefghij k", ("abcdefghij l", "ghij")) == Reading(option=1, rule="contained")
    assert RULES == ("letter", "equal", "contained", "similar")


def test_of_options_that_normalise_alike_the_first_is_meant() -> None:
    assert read_answer("-1", ("1", "-1")) == Reading(option=0, rule="equal")
    assert read_answer("1.", ("-1", "1")) == Reading(option=0, rule="equal")


def test_a_lead_is_dropped_from_the_front_and_not_behind_a_space() -> None:
    options = ("is restored", "is renewed")
    assert read_answer("choice is restored maybe", options) is None
    assert read_answer(" choice is restored maybe", options) == Reading(option=0, rule="contained")


def test_the_most_similar_option_is_meant() -> None:
    options = ("abcdefghijklmnopqrsX", "abcdefghijklmnopqrXY", "abcdefghijklmnopqrst")
    assert read_answer("abcdefghijklmnopqrsX.", options) == Reading(option=0, rule="equal")
    assert read_answer("abcdefghijklmnopqrs", options) == Reading(option=0, rule="similar")
    assert read_answer("bcdefghijklmnopqrst", options) == Reading(option=2, rule="similar")


def test_similarity_is_difflibs_wherever_it_counts() -> None:
    rng = random.Random(0)
    seen = set()
    for _ in range(2000):
        text = "".join(rng.choices("abc ", k=rng.randrange(30)))
        other = "".join(letter for letter in text if rng.random() < 0.95) + rng.choice(["", "d"])
        ratio = difflib.SequenceMatcher(None, text, other).ratio()
        assert _similarity(text, other) == (ratio if ratio >= SIMILAR else pytest.approx(0.0, abs=ratio))
        seen.add(ratio >= SIMILAR)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" a dog\nQuestion: two", " a dog"),
        ("\n\n a dog\n", "\n\n a dog"),
        ("?\n!", "?\n!"),
        ("a dog", "a dog"),
        ("", ""),
    ],
)
def test_an_answer_ends_with_its_line(text: str, kept: str) -> None:
    assert cut(text) == kept


def test_normalised_text() -> None:
    assert normalise(" The  U.S.—«Cat’s»\tnine_lives! ") == "the uscats nine_lives"


# The tasks.


@pytest.mark.parametrize(
    ("task", "generate", "truth", "right"),
    [
        ("lambada", ' "Signs," he said', "signs", True),
        ("lambada", " sign of", "signs", False),
        ("lambada", "earl's hat", "earl", False),
        ("lambada", "", "signs", False),
        ("lambada", " of course", "of\n\nPower", True),
        ("squad", " Denver Broncos.", "denver  broncos", True),
        ("squad", " The Denver Broncos", "Denver Broncos", False),
        ("squad", " 1999", 1999, True),
        ("hellaswag", " He sits down.", "he sits down", True),
        ("story_cloze", " He sits dwn.", "he sits down", False),
    ],
)
def test_texts_are_compared(task: str, generate: str, truth: Any, right: bool, tmp_path: Path) -> None:
    assert scored(tmp_path, task, {"generate": generate, "ground_truth": truth})["correct"] == right


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.choices == "needed"])
@pytest.mark.parametrize(
    ("generate", "right"),
    [
        (" B", True),
        (" A", False),
        (" the cat", True),
        (" the cats", True),
        (" a dog and the cat", False),
        (" x", False),
    ],
)
def test_options_are_compared(task: str, generate: str, right: bool, tmp_path: Path) -> None:
    assert scored(tmp_path, task, answer(generate, "the cat"))["correct"] == right


@pytest.mark.parametrize("task", ["hellaswag", "story_cloze"])
def test_a_near_text_names_the_option_but_does_not_score(task: str, tmp_path: Path) -> None:
    figures = scored(tmp_path, task, answer(" the cats", "the cat"), answer(" B", 1), answer(" The cat.", "B"))
    assert (figures["correct"], figures["named"], figures["accuracy_named"]) == (1, 100.0, 100.0)


@pytest.mark.parametrize("truth", ["the cat", "The Cat.", "B", "(b)", 1, "1", "answer: the cat", "it is the cat"])
@pytest.mark.parametrize(("generate", "right"), [(" the cat", True), (" B", True), (" 1", False), (" a dog", False)])
def test_a_truth_is_a_text_a_letter_or_a_number(truth: Any, generate: str, right: bool, tmp_path: Path) -> None:
    assert scored(tmp_path, "race", answer(generate, truth))["correct"] == right


@pytest.mark.parametrize(
    ("choices", "truth", "generate", "right"),
    [
        (["0", "4", "1", "6"], "1", " 1", True),  # a text before a number of a choice
        (["0", "4", "1", "6"], "1", " 4", False),
        (["0", "4", "1", "6"], 1, " 4", True),  # a JSON number counts the choices
        ([0, 4, 1, 6], 1, " 1", True),  # unless they are numbers too
        (["B", "A", "D"], "B", " B", True),  # letters are read alike on both sides
        (["B", "A", "D"], "B", " A", False),
        (["1", "-1"], "-1", " -1", True),
        (["1", "-1"], "-1", " A", True),  # options that are equal without punctuation are the first of them
        (["1", "-1"], "-1", " B", False),
        (["same", "same", "other"], "same", " B", True),  # options with one text are one
        (["yes", "no"], "no", " C", False),
        (["+", "-"], "-", " B", True),
        (["+", "-"], "-", " A", False),
        (["to answer a call", "to sleep"], "to sleep", " A", False),
        (["to sleep", "to answer a call"], "to answer a call", " to answer a call", True),
        (["to sleep", "to answer a call"], "to answer a call", " to sleep", True),
    ],
)
def test_choices_that_look_like_codes(choices: Any, truth: Any, generate: str, right: bool, tmp_path: Path) -> None:
    assert scored(tmp_path, "siqa", answer(generate, truth, choices))["correct"] == right


# The figures beside the published one.


def test_what_the_accuracy_hides(tmp_path: Path) -> None:
    figures = scored(
        tmp_path,
        "mmlu",
        answer(" the cat", "the cat"),
        answer(" a dog", "the cat"),
        answer(" who knows", "the cat"),
        answer(" no", "yes", ["yes", "no"]),
    )
    assert figures["interval"] == tuple(round(100 * share, 2) for share in wilson(1, 4))
    del figures["interval"]
    assert figures == {
        "task": "mmlu",
        "count": 4,
        "correct": 1,
        "accuracy": 25.0,
        "with_choices": 4,
        "named": 75.0,
        "accuracy_named": 33.33,
        "chance": 31.25,
        "named_by": {"letter": 0, "equal": 3, "contained": 0, "similar": 0},
        "exact_match": None,
        "f1": None,
    }


def test_figures_of_choices_are_over_the_answers_that_have_them(tmp_path: Path) -> None:
    elsewhere = answer("x", "not among the choices")
    figures = scored(tmp_path, "hellaswag", answer("a dog", "a dog"), elsewhere, {"generate": "x", "ground_truth": "x"})
    assert (figures["correct"], figures["count"], figures["with_choices"], figures["named"]) == (2, 3, 1, 100.0)


def test_nothing_named_has_no_accuracy(tmp_path: Path) -> None:
    figures = scored(tmp_path, "obqa", answer("?", "a dog"))
    assert (figures["named"], figures["accuracy_named"], figures["accuracy"]) == (0.0, None, 0.0)


@pytest.mark.parametrize(
    ("text", "truth", "exact", "f1"),
    [
        ("The Denver Broncos!", "denver broncos", True, 1.0),
        ("Denver", "the Denver Broncos", False, 2 / 3),
        ("to be or not to be", "to be", False, 2 * 2 / (6 + 2)),
        ("Panthers", "Broncos", False, 0.0),
        ("the", "", True, 1.0),
        ("the", "Broncos", False, 0.0),
        ("theatre", "atre", False, 0.0),
        ("a-b", "ab", True, 1.0),
        ("“ab”", "ab", False, 0.0),  # SQuAD drops ASCII punctuation only
    ],
)
def test_squads_own_measures(text: str, truth: str, exact: bool, f1: float) -> None:
    assert exact_match(text, truth) == exact
    assert token_f1(text, truth) == pytest.approx(f1)


@pytest.mark.parametrize(("right", "count"), [(193, 1000), (115, 500), (1, 4), (0, 10), (10, 10), (0, 1)])
def test_wilsons_interval_ends_where_the_test_of_a_share_turns(right: int, count: int) -> None:
    share = right / count
    for end in wilson(right, count):
        assert 0 <= end <= 1
        assert (share - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / count, abs=1e-12)
    low, high = wilson(right, count)
    assert low - 1e-12 <= share <= high + 1e-12
    assert low < high


# The command.


def test_the_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, answer(" the cat", "B"), answer(" hm", "B"))
    assert main(["eval", "score", str(path), "--task", "race"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "race accuracy 50.00 % 1 of 2, 95 % interval 9.45 to 90.55",
        "names an option 50.00 % of 2, by rule: letter 0, equal 1, contained 0, similar 0",
        "accuracy of these 100.00 % the option named is the true one",
        "chance 25.00 % one option drawn at random",
    ]


def test_the_command_knows_all_tasks() -> None:
    assert tuple(TASKS) == NAMES


def test_scoring_imports_nothing_heavy(tmp_path: Path) -> None:
    path = written(tmp_path, answer(" the cat", "B"))
    script = f"""
import sys
from colatent.cli.main import main
assert main(["eval", "score", {str(path)!r}, "--task", "race", "--json"]) == 0
assert not {{"torch", "numpy", "pydantic", "tokenizers", "rich"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["accuracy"] == 100.0


def test_blank_lines_a_byte_order_mark_and_strange_spaces_pass(tmp_path: Path) -> None:
    line = json.dumps(answer(" the\u2028cat \ud800", "the cat\u2028"), ensure_ascii=True)
    raw = json.dumps(answer(" the\u2028cat", "the cat"), ensure_ascii=False)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(f"\ufeff{line}\r\n\n  \n{raw}".encode())
    assert [record.truth for record in read_records(path, "race")] == ["the cat\u2028", "the cat"]


GOOD = answer(" the cat", "the cat")


@pytest.mark.parametrize(
    ("task", "bad", "complaint"),
    [
        ("race", '{"generate": ', "not JSON (Expecting value"),
        ("race", "[" * 100_000, "not JSON ("),
        ("race", '"text"', 'must be a JSON object, found "text"'),
        ("race", {"ground_truth": "x", "choices": ["x", "y"]}, "the field generate is missing"),
        ("race", {"generate": "x", "choices": ["x", "y"]}, "the field ground_truth is missing"),
        ("race", answer(["x"], "a dog"), 'generate must be one text, found ["x"]'),
        ("race", answer(None, "a dog"), "generate must be one text, found null"),
        ("race", answer("x", " "), 'ground_truth must be a text or a number, found " "'),
        ("race", answer("x", ["a dog"]), 'ground_truth must be a text or a number, found ["a dog"]'),
        ("race", answer("x", True), "ground_truth must be a text or a number, found true"),
        ("race", answer("x", 4), "ground_truth 4 is no number of the 4 choices; count them from 0"),
        ("race", answer("x", -1), "ground_truth -1 is no number of the 4 choices"),
        ("race", answer("x", "x", ["x", None]), 'choices must be a list of texts, found ["x", null]'),
        ("race", answer("x", "x", "xyz"), 'choices must be a list of texts, found "xyz"'),
        ("hellaswag", answer("x", 7), "ground_truth 7 is no number of the 4 choices"),
    ],
)
def test_what_cannot_be_scored_is_one_line_with_its_place(
    task: str, bad: Any, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"generate": "x", "ground_truth": "x"} if task == "squad" else GOOD
    path = written(tmp_path, good, "", bad, good)
    assert main(["eval", "score", str(path), "--task", task]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"colatent: {path}:3: {complaint}")
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 400


def test_a_file_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "answers.jsonl"
    for raw, complaint in (
        (b"", "1: holds no record"),
        (b"\n \n", "1: holds no record"),
        (b"\n\xff\n", "2: not UTF-8"),
    ):
        path.write_bytes(raw)
        assert main(["eval", "score", str(path), "--task", "race"]) == 2
        assert capsys.readouterr().err.startswith(f"colatent: {path}:{complaint}")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.jsonl", "--task", "mmlu"], "colatent: none.jsonl: No such file or directory"),
        ([".", "--task", "mmlu"], "colatent: .: Is a directory"),
        (["x.jsonl", "--task", "gsm8k"], "colatent: Invalid value for '--task': 'gsm8k' is not one of 'lambada', "),
        (["x.jsonl"], "colatent: Missing option '--task'."),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], complaint: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "score", *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(complaint)
    assert printed.count("\n") == 1


def test_judging_says_what_was_read(tmp_path: Path) -> None:
    (record,) = read_records(written(tmp_path, answer(" the cats\n\nQuestion", "B")), "story_cloze")
    found = judge(record, TASKS["story_cloze"])
    assert (record.answer, record.truth, record.true_option) == (" the cats", "the cat", 1)
    assert (found.right, found.names_truth, found.reading) == (False, True, Reading(option=1, rule="contained"))


@pytest.mark.parametrize(
    ("task", "odd", "note"),
    [
        ("race", {"generate": "x", "ground_truth": "x"}, "without choices, compared as text"),
        ("race", answer(" A horse.", "a horse"), "whose ground_truth is none of its choices, compared as text"),
        ("squad", GOOD, "with choices, which this task does not have: they are ignored"),
    ],
)
def test_odd_records_are_compared_as_text_and_told(task: str, odd: Any, note: str, tmp_path: Path) -> None:
    path = written(tmp_path, odd, odd | {"generate": "something else"})
    with pytest.warns(UserWarning, match=f"2 records {note}"):
        records = list(read_records(path, task))
    assert [judge(record, TASKS[task]).right for record in records] == [True, False]


def test_a_truth_is_read_like_an_answer(tmp_path: Path) -> None:
    """As released: "to answer a call" means A on both sides."""
    options = ["the dog", "the cat", "to answer a call", "a bird"]
    given = [answer(text, "to answer a call", options) for text in (" to answer a call", " the dog", " the cat")]
    records = list(read_records(written(tmp_path, *given), "race"))
    assert [record.true_option for record in records] == [0, 0, 0]
    assert [judge(record, TASKS["race"]).right for record in records] == [True, True, False]
