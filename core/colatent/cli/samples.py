"""Where generated items go: text into the records that are printed, everything else into files that the records name.

Whether items print is the codec's to say: those that a string spells do. Files are written aside and move to their
folder together, so that it holds all samples of a call or none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colatent.errors import UserError
from colatent.jsons import json_text

if TYPE_CHECKING:
    from colatent.cli.asking import Question
    from colatent.generate.requests import Result
    from colatent.plugins.contract import Codec
    from colatent.plugins.latents import Item

RECORDS = "samples.jsonl"


def prints(codec: Codec) -> bool:
    """Whether an item of this codec can be printed."""
    from colatent.plugins.contract import Spelled

    return isinstance(codec, Spelled)


def check_place(codec: Codec, *, stream: str, out: str | None, live: str | None) -> None:
    """Refuse, before the work, items that nothing here could print or write."""
    from colatent.plugins.items import FileCodec

    if prints(codec):
        return
    if not isinstance(codec, FileCodec):
        what = f"items of stream {stream!r} can be neither printed nor written: its codec has no write_item (FileCodec)"
        raise UserError(what, do="generate them in Python, with colatent.load(...).generate(...)")
    if live:
        what = f"--{live} prints text, and items of stream {stream!r} are files"
        raise UserError(what, do=f"leave out --{live} and add --out DIR")
    if out is None:
        raise UserError(f"items of stream {stream!r} cannot be printed", do="add --out DIR, they are written there")


@contextmanager
def gathered(folder: Path, *, stream: str) -> Iterator[Path]:
    """A folder to write into, whose files move into `folder` in the end; none does where something fails.

    Refused before the work: a place that cannot be written, which must not cost the samples, and one that holds some.
    """
    from colatent.checkpoint.storage import result_folder, sync_folder, temporary_beside

    with result_folder(folder):
        for name in (RECORDS, f"{stream}-[0-9]*"):
            for found in folder.glob(name):
                raise UserError("is there already", where=str(found), do="name another folder with --out")
        aside = temporary_beside(folder / "samples")
        aside.mkdir()
        try:
            yield aside
            for path in sorted(aside.iterdir(), key=lambda path: path.name == RECORDS):  # the list of them comes last
                os.rename(path, folder / path.name)
            sync_folder(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def records_of(
    asked: Sequence[Question],
    results: Sequence[Sequence[Result]],
    *,
    codec: Codec,
    stream: str,
    seed: int,
    aside: Path | None,
) -> list[dict[str, Any]]:
    """A record for each sample, with its text, or with the name of its file, which is written into `aside` here."""
    records = []
    for number, (question, some) in enumerate(zip(asked, results, strict=True)):
        width = len(str(len(some) - 1))
        for sample, result in enumerate(some):
            name = f"{stream}-{number:04d}-{sample:0{width}d}"
            shown = str(result.item) if prints(codec) else _write(codec, result.item, aside, name)
            records.append({**question.facts, "sample": sample, "seed": seed, stream: shown, **result.details})
    if aside is not None:
        lines = "".join(json_text(record) + "\n" for record in records)
        with _filling(aside):
            (aside / RECORDS).write_text(lines, encoding="utf-8")
    return records


@contextmanager
def _filling(aside: Path) -> Iterator[None]:
    """A full disk is told with its folder: what fails in writing a file that is open names none."""
    try:
        yield
    except OSError as error:
        what, do = f"cannot be written: {error.strerror or error}", "make room, or name another folder with --out"
        raise UserError(what, where=str(aside.parent), do=do) from error


def _write(codec: Codec, item: Item, aside: Path | None, name: str) -> str:
    """Write an item; gives the name of its file."""
    from colatent.plugins.items import FileCodec

    assert isinstance(codec, FileCodec)
    assert aside is not None
    with _filling(aside):
        return codec.write_item(item, aside / name).name


def readable(asked: Sequence[Question], records: Sequence[dict[str, Any]], *, stream: str, out: Path | None) -> str:
    """Each sample's beginning and continuation, a line between samples; of files, where they are."""
    if out is not None:
        return "\n".join(str(out / record[stream]) for record in records)
    begun = [question.begun for question in asked for _ in range(len(records) // len(asked))]
    return "\n---\n".join(before + record[stream] for before, record in zip(begun, records, strict=True))
