"""Samples that lie in a run folder, by the step at which they were drawn.

Where a run keeps any, they lie in `samples/`: those in a folder `step-00001000` are of that step, others of no step.
Lists of records (`*.jsonl`) name files beside them or hold text; pictures, sounds and texts may also lie there by
themselves. Nothing is trusted: names lead nowhere but to a file of the same folder, and what is too large is left out.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from colatent.evaluate.page import Cell, Grid
from colatent.jsons import parse_json
from colatent.plugins.items import Shown

RECORDS = ".jsonl"
EACH, STEPS = 6, 8
"""Samples of one step, and steps, that are shown at most."""
LARGEST = 2_000_000
"""Bytes of one file that a page takes in."""
LONGEST = 300
"""Characters of a text."""
KINDS = ("image/", "audio/", "text/plain")
_STEP = re.compile(r"step-(\d+)")


def samples(folder: Path) -> Grid | None:
    """A row for each step, the oldest and the newest among them; None where there are no samples."""
    found: dict[tuple[str, int], list[Cell]] = {}
    for place in sorted(_folders(folder)):
        step = next((int(match[1]) for part in place.parts[::-1] if (match := _STEP.fullmatch(part))), -1)
        above = "/".join(part for part in place.relative_to(folder).parts if not _STEP.fullmatch(part))
        found.setdefault((above, step), []).extend(_cells(place))
    rows = [(_title(above, step), cells[:EACH]) for (above, step), cells in sorted(found.items()) if cells]
    return Grid(rows=_spread(rows), size=96) if rows else None


def _folders(folder: Path) -> Iterator[Path]:
    """A folder and those below it, without links and what is half written."""
    if not folder.is_dir() or folder.is_symlink():
        return
    yield folder
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            yield from _folders(path)


def _title(above: str, step: int) -> str:
    return " ".join(part for part in (above, f"step {step}" if step >= 0 else "") if part) or "samples"


def _spread(rows: list[tuple[str, list[Cell]]]) -> list[tuple[str, list[Cell]]]:
    """At most `STEPS` of them, evenly, with the first and the last."""
    if len(rows) <= STEPS:
        return rows
    return [rows[round(place * (len(rows) - 1) / (STEPS - 1))] for place in range(STEPS)]


def _cells(folder: Path) -> list[Cell]:
    """What its lists of records say, then files that no list names."""
    inside = (path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    files = sorted(path for path in inside if path.stat().st_size <= LARGEST)
    cells, named = [], set()
    for path in (path for path in files if path.suffix == RECORDS):
        for record in _records(path):
            cell, used = _of_record(record, {one.name: one for one in files})
            named |= used
            cells += [cell] if cell is not None else []
    alone = (path for path in files if path.name not in named)
    return [*cells, *(Cell(shown=one, label=path.stem) for path in alone if (one := _shown(path)) is not None)]


def _records(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # texts may hold other line breaks
        with suppress(ValueError):
            found.append(parse_json(line))
    return [record for record in found if isinstance(record, dict)]


def _of_record(record: dict[str, Any], files: dict[str, Path]) -> tuple[Cell | None, set[str]]:
    """Words of a record as its text, or as the label of the file that it names: of several the last, since what was
    given comes before what was generated."""
    words = {name: value for name, value in record.items() if isinstance(value, str)}
    used = [value for value in words.values() if value in files]
    said = "\n".join(f"{name}: {value}" for name, value in words.items() if value not in used)[:LONGEST]
    for value in reversed(used):
        shown = _shown(files[value])
        if shown is not None:
            return Cell(shown=shown, label=said), set(used)
    return (Cell(shown=Shown(media="text/plain", data=said.encode())) if said else None), set(used)


def _shown(path: Path) -> Shown | None:
    """A file as a page takes it, by its suffix."""
    media = mimetypes.guess_type(path.name)[0] or ""
    if not media.startswith(KINDS):
        return None
    data = path.read_bytes()
    return Shown(media=media, data=data[:LONGEST] if media.startswith("text/") else data)
