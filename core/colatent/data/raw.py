"""What `colatent data pack` takes: text, JSON lines, or a folder, as samples of files.

A sample is a key and the bytes of its files by suffix, and nothing here asks what they are. A file's name ends its key
and begins its suffix at its first dot, as readers of WebDataset have it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colatent.data.scan import LONGEST, NAMED, check_suffix
from colatent.errors import UserError
from colatent.jsons import parse_json

Files = Mapping[str, bytes]
Cut = Literal["lines", "paragraphs"]
FIELD = re.compile(r"[a-z_][a-z0-9_-]{0,49}")
SUFFIX = re.compile(r"[^\s./]{1,20}")
TEXT, VALUE = "txt", "json"
"""Suffixes of what a text or a JSON value becomes."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """What is to be packed.

    samples  (key, files) in order, read as they are asked for
    total    how many there are, None where that is not known before
    """

    samples: Iterator[tuple[str, Files]]
    total: int | None = None


def open_raw(path: Path, *, cut: Cut = "lines", suffixes: tuple[str, ...] = ()) -> Raw:
    """The samples at a path: a folder's files, the objects of a .jsonl file, or the parts of a text.

    cut       what of a text is a sample
    suffixes  of the files of a folder that count; empty: all
    """
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    if suffixes and not path.is_dir():
        raise UserError("is no folder, whose files --suffixes chooses", where=str(path), do="leave --suffixes out")
    if cut != "lines" and (path.is_dir() or lines):
        raise UserError("is no text that could be cut", where=str(path), do="leave --cut out")
    if path.is_dir():
        return _folder(path, tuple(suffix.strip().lower().lstrip(".") for suffix in suffixes))
    if not path.is_file():
        what = "is no regular file" if path.exists() else "no such file or folder"
        raise UserError(what, where=str(path), do="give a text file, a .jsonl file or a folder")
    if lines:
        return Raw(samples=_json_lines(path))
    return Raw(samples=_texts(path, cut))


def _numbered(number: int) -> str:
    return f"{number:09d}"


# Text.


def _texts(path: Path, cut: Cut) -> Iterator[tuple[str, Files]]:
    parts = _lines(path) if cut == "lines" else _paragraphs(_lines(path))
    held = (part for part in parts if part.strip())
    for number, part in enumerate(held):
        yield _numbered(number), {TEXT: part.encode("utf-8")}


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, without their ends and without a byte order mark."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                what = f"not UTF-8 (byte 0x{line[error.start]:02x})"
                raise UserError(what, where=f"{path}, line {number}", do="convert the file to UTF-8") from error
            yield text.removeprefix("\ufeff" if number == 1 else "").removesuffix("\n").removesuffix("\r")


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    """Lines in a row without an empty one between them."""
    held: list[str] = []
    for line in lines:
        if line.strip():
            held.append(line)
        elif held:
            yield "\n".join(held)
            held = []
    if held:
        yield "\n".join(held)


# JSON lines.


def _json_lines(path: Path) -> Iterator[tuple[str, Files]]:
    """An object a line. Whether a field holds files or values is settled by its first line, so that a file that is
    missing further on is not taken for a text."""
    kinds: dict[str, bool] = {}
    number = 0
    for at, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {at}"
        files = dict(_member(name, value, path.parent, kinds, where) for name, value in _object(line, where).items())
        if not files:
            raise UserError("holds nothing but null", where=where, do="give it a field, or take it out")
        yield _numbered(number), files
        number += 1


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = parse_json(line)
    except ValueError as error:
        raise UserError("is not JSON", where=where, do="write one object a line") from error
    if not isinstance(found, dict):
        raise UserError("is no JSON object", where=where, do='write {"field": value, ...}')
    fields = {name.lower(): value for name, value in found.items()}  # as readers take suffixes
    for name in fields:
        if not FIELD.fullmatch(name):
            what = f"field {name[:50]!r} is not of up to 50 letters, digits, '_' and '-'"
            raise UserError(what, where=where, do="rename it")
    if len(fields) < len(found):
        raise UserError("two fields differ by capital letters only", where=where, do="rename one")
    return {name: value for name, value in fields.items() if value is not None}


def _member(name: str, value: Any, folder: Path, kinds: dict[str, bool], where: str) -> tuple[str, bytes]:
    """A field as a file: that which its value names, or the value itself."""
    file = _beside(folder, value)
    if kinds.setdefault(name, file is not None) != (file is not None):
        what = f"{name} names no file, as it did before" if file is None else f"{name} names a file, and did not before"
        raise UserError(f"{what}: {str(value)[:80]!r}", where=where, do=f"let {name} name a file in {folder} always")
    if file is not None:
        suffix = f"{name}.{file.suffix.lower().lstrip('.')}"
        check_suffix(suffix, name=file.name, where=where)
        return suffix, file.read_bytes()
    if isinstance(value, str):
        return f"{name}.{TEXT}", value.encode("utf-8", "replace")
    return f"{name}.{VALUE}", json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")


def _beside(folder: Path, value: Any) -> Path | None:
    """The file inside `folder` that a value names, if it names one."""
    if not isinstance(value, str) or not value or "\0" in value or "\n" in value or len(value) > 1000:
        return None
    try:
        path = (folder / value).resolve()
        inside = path.is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):  # too long for a name, or of characters that none has
        return None
    return path if inside and SUFFIX.fullmatch(path.suffix[1:]) else None


# Folders.


def _folder(root: Path, suffixes: tuple[str, ...]) -> Raw:
    """Files whose paths are alike up to the first dot of their names are a sample."""
    groups: dict[str, dict[str, Path]] = {}
    for path in sorted(root.rglob("*"), key=lambda each: each.relative_to(root).as_posix()):
        if not SUFFIX.fullmatch(path.suffix[1:]) or _hidden(path, root) or not path.is_file():
            continue
        stem, _, suffix = path.name.partition(".")
        suffix = suffix.lower()
        if suffixes and not any(_ends(suffix, some) for some in suffixes):
            continue
        if NAMED.fullmatch(path.name) is None or len(suffix) > LONGEST:
            what = f"what follows the first dot of its name has white space, an empty part or over {LONGEST} characters"
            raise UserError(what, where=str(path), do="rename it")
        check_suffix(suffix, name=path.name, where=str(path))
        key = (path.relative_to(root).parent / stem).as_posix()
        group = groups.setdefault(key, {})
        if suffix in group:
            raise UserError(f"is {suffix!r} of sample {key!r}, as {group[suffix]} is", where=str(path), do="rename one")
        group[suffix] = path
    for some in suffixes:
        if not any(_ends(suffix, some) for group in groups.values() for suffix in group):
            raise UserError(f"no file ends in .{some}", where=str(root), do="take it out of --suffixes, or mend it")
    _check_whole(groups)
    return Raw(samples=_read(groups), total=len(groups))


def _ends(suffix: str, asked: str) -> bool:
    return f".{suffix}".endswith(f".{asked}")


def _read(groups: Mapping[str, Mapping[str, Path]]) -> Iterator[tuple[str, Files]]:
    for key, group in groups.items():
        yield key, {suffix: path.read_bytes() for suffix, path in sorted(group.items())}


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _check_whole(groups: Mapping[str, Mapping[str, Path]]) -> None:
    """A sample that lacks a file that the others have is found now, and not in the middle of a run."""
    most = max((len(group) for group in groups.values()), default=0)
    for group in groups.values():
        if len(group) < most:
            what = f"is one of {len(group)}, where" if len(group) > 1 else "stands alone, where"
            do = "add what is missing, take it out, or choose files with --suffixes"
            raise UserError(f"{what} other samples have {most} files", where=str(next(iter(group.values()))), do=do)
