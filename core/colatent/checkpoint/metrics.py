"""Metrics of a run as lines of JSON, appended one by one.

A line is one write to a file opened for appending, so that a reader never sees half of one and a killed run loses at
most its last line. What a resumed run will do again is dropped first, or curves would show some steps twice.

A number that is not finite is no JSON, and a loss that is says why a run ended or skipped a step. It is written as a
string, which every reader of JSON takes, and read as the number that it is.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from colatent.checkpoint.storage import atomic_write_text
from colatent.errors import UserError
from colatent.jsons import parse_json

SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Numbers that JSON does not have, by the strings that stand for them."""
SKIPPED = "skipped"
"""Marks the record of a training step that was not finite and left out: how many of its stage were, until then."""


class MetricsFile:
    """An append-only JSONL file. A record that has a `stage` and a `step` can be dropped by `truncate`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record as one line."""
        line = _line(record).encode("utf-8")
        try:
            if self._file is None:
                self._file = self._open()
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.close()
            raise UserError(f"cannot be written: {error.strerror}", where=str(self.path), do="make room") from error

    def _open(self) -> FileIO:
        """The file for appending; the torn last line of a killed run is ended, so that it spoils no other."""
        file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 (kept open for the whole run)
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        return file

    def read(self) -> Iterator[dict[str, Any]]:
        """All records in order, without torn lines."""
        if not self.path.exists():
            return
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    record = parse_json(line, object_hook=_numbers)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record

    def truncate(self, *, after_step: int, stage: str, later: Collection[str] = ()) -> None:
        """Drop the lines of `stage` past `after_step`, all lines of `later` stages, and torn lines."""

        def keep(record: Mapping[str, Any]) -> bool:
            past = record.get("stage") == stage and record.get("step", 0) > after_step
            return not past and record.get("stage") not in later

        self.close()
        if self.path.exists():
            atomic_write_text(self.path, "".join(_line(record) for record in self.read() if keep(record)))

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_spelled(record), allow_nan=False) + "\n"


def _spelled(value: Any) -> Any:
    """A record with strings for the numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _spelled(one) for name, one in value.items()}
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _numbers(found: dict[str, Any]) -> dict[str, Any]:
    return {name: SPELLED.get(one, one) if isinstance(one, str) else one for name, one in found.items()}
