"""Stored answers from a JSONL file, each line checked before it is scored.

A figure over a file of which some lines were skipped is not the figure of that file, so whatever is no record is
refused with its line; only blank lines pass. Records whose options are missing or do not hold the truth are compared as
text, as the released scorer does, and counted in a warning. A ground truth may be written as an option's text, its
letter or its number from 0.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colatent.errors import UserError
from colatent.jsons import parse_json
from colatent_text.scoring.protocol import TASKS, Record, cut, lone_letter, normalise, read_truth

WITHOUT = "without choices, compared as text"
OUTSIDE = "whose ground_truth is none of its choices, compared as text"
IGNORED = "with choices, which this task does not have: they are ignored"


def read_records(path: Path, task: str) -> Iterator[Record]:
    """The records of a file for one of `TASKS`; a `UserError` names the line that cannot be scored."""
    none, notes = True, Counter[str]()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                none, where = False, f"{path}:{number}"
                yield _record(_parsed(line, first=number == 1, where=where), task, where, notes)
    if none:
        raise UserError("holds no record", where=f"{path}:1", do="give a JSONL file of generations")
    for note, count in notes.items():
        warnings.warn(f"{path}: {count} records {note}", stacklevel=2)


def _parsed(line: bytes, *, first: bool, where: str) -> Mapping[str, Any]:
    try:
        value = parse_json(line.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 (byte 0x{error.object[error.start]:02x})", where=where) from error
    except ValueError as error:
        raise UserError(f"not JSON ({error})", where=where, do="write one JSON object a line") from error
    if not isinstance(value, dict):
        raise UserError(f"must be a JSON object, found {_shown(value)}", where=where)
    return value


def _record(fields: Mapping[str, Any], task: str, where: str, notes: Counter[str]) -> Record:
    rule, answer, given = TASKS[task].choices, _answer(fields, where), fields.get("choices") or []
    options = _options(given, where)
    if rule == "none" and options:
        notes[IGNORED] += 1
        given, options = [], ()
    truth = _truth(fields["ground_truth"], given, where)
    number = _true_option(truth, options, guess=rule == "needed")
    if number is not None:
        coded = normalise(truth) not in map(normalise, options)  # a letter or a number, which no right answer spells
        truth = options[number] if coded else truth
    elif rule == "needed":
        notes[OUTSIDE if options else WITHOUT] += 1
    else:  # texts are compared: choices without the true one among them say nothing
        options = ()
    return Record(answer=answer, truth=truth, options=options, true_option=number)


def _answer(fields: Mapping[str, Any], where: str) -> str:
    for name in ("generate", "ground_truth"):
        if name not in fields:
            raise UserError(f"the field {name} is missing", where=where)
    if not isinstance(fields["generate"], str):
        raise UserError(f"generate must be one text, found {_shown(fields['generate'])}", where=where)
    return cut(fields["generate"])


def _options(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(map(_is_value, given)):
        raise UserError(f"choices must be a list of texts, found {_shown(given)}", where=where)
    return tuple(map(str, given))


def _truth(value: Any, given: list[Any], where: str) -> str:
    """The truth as text. A whole number counts the choices from 0, unless the choices are numbers themselves."""
    if not _is_value(value) or (isinstance(value, str) and not value.strip()):
        raise UserError(f"ground_truth must be a text or a number, found {_shown(value)}", where=where)
    if isinstance(value, int) and given and all(isinstance(option, str) for option in given):
        if not 0 <= value < len(given):
            what = f"ground_truth {value} is no number of the {len(given)} choices"
            raise UserError(what, where=where, do="count them from 0")
        return str(given[value])
    return str(value)


def _true_option(truth: str, options: tuple[str, ...], *, guess: bool) -> int | None:
    """Which option the truth is: read as an answer is, else its number from 0.

    guess  whether it may be more than a lone letter or an option's text
    """
    if guess and (found := read_truth(truth, options)) is not None:
        return found.option
    if (letter := lone_letter(truth, len(options))) is not None:
        return letter
    spelt = [number for number, option in enumerate(options) if option.strip() == truth.strip()]
    normal = normalise(truth)
    equal = [number for number, option in enumerate(options) if normal and normalise(option) == normal]
    if spelt or equal:
        return (spelt or equal)[0]
    if truth.strip().isdecimal():
        return next((number for number in range(len(options)) if str(number) == truth.strip()), None)
    return None


def _is_value(value: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):  # NaN and 1e999, which Python's JSON lets through
        return False
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
