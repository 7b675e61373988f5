"""JSON in and out: only what the standard has, at a depth that a reader survives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from colatent.cli.main import main
from colatent.jsons import json_text, parse_json


def _refuse(word: str) -> Any:
    raise AssertionError(f"{word} is not JSON")


def test_numbers_that_json_does_not_have_are_null() -> None:
    value = {"a": [1.5, float("nan"), (float("inf"), "é")], "b": {"c": -float("inf"), "d": None}, "e": True}
    found = json.loads(json_text(value), parse_constant=_refuse)
    assert found == {"a": [1.5, None, [None, "é"]], "b": {"c": None, "d": None}, "e": True}
    assert "é" in json_text(value)


def test_what_is_nested_too_deeply_is_a_value_error() -> None:
    assert parse_json('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 200_000)


@pytest.mark.parametrize("line", ["[" * 200_000, "{"])
def test_a_line_of_either_is_refused_in_one_line(tmp_path, line: str, capsys) -> None:
    (tmp_path / "some.jsonl").write_text(line + "\n")
    assert main(["data", "pack", str(tmp_path / "some.jsonl"), str(tmp_path / "out")]) == 2
    assert "some.jsonl, line 1: is not JSON" in capsys.readouterr().err
