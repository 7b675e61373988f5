"""Writing checkpoints: as a whole or not at all.

A checkpoint is written aside, synced, sealed by its manifest and renamed to `step-00001234`. A step that is written
again first parks the old folder as `step-00001234.old`, which readers accept too: folders cannot be exchanged in one
move everywhere, and so there is still no moment without a valid one.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from colatent.checkpoint.folder import newest, valid_checkpoints, why_invalid
from colatent.checkpoint.manifest import MANIFEST, Manifest, check_name, manifest_bytes
from colatent.checkpoint.rows import file_name
from colatent.checkpoint.storage import (
    TEMPORARY,
    FileRecord,
    remove_folder,
    sync_folder,
    temporary_beside,
    write_chunks,
)
from colatent.checkpoint.tensors import safetensors_chunks
from colatent.errors import UserError

Chunks = Iterator[bytes | memoryview]


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def write_checkpoint(
    folder: Path | str,
    *,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Any],
    files: Mapping[str, bytes],
    fingerprint: str,
    versions: Mapping[str, str],
) -> Path:
    """Save a checkpoint and return its folder. When anything fails, all older checkpoints are as they were."""
    contents = file_contents(tensors, documents, files)
    with drafted(Path(folder), step=step) as draft:
        records = draft.add(contents)
        return draft.seal(Manifest(step=step, files=records, versions=versions, fingerprint=fingerprint))


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A checkpoint that is being written aside."""

    path: Path
    target: Path

    def add(self, contents: Mapping[str, Chunks]) -> dict[str, FileRecord]:
        """Write and sync files, the sub-folders that they lie in, and their names."""
        records = {}
        for name, chunks in contents.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            records[name] = write_chunks(path, chunks)
        for path in (self.path, *self.path.rglob("*")):
            if path.is_dir():
                sync_folder(path)
        return records

    def seal(self, manifest: Manifest) -> Path:
        """Make it the checkpoint of its step, all of whose files are on the disk; gives its folder."""
        write_chunks(self.path / MANIFEST, [manifest_bytes(manifest)])
        sync_folder(self.path)
        _move_in(self.path, self.target)
        return self.target


@contextmanager
def drafted(folder: Path, *, step: int) -> Iterator[Draft]:
    """A draft of the checkpoint of a step, which is gone at the end unless it was sealed."""
    target = step_folder(folder, step)
    draft = Draft(path=temporary_beside(target), target=target)
    try:
        with saving(folder):
            _make_folder(folder)
            os.mkdir(draft.path)
            yield draft
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """What the disk refuses here is said in one line, with the checkpoint to go on from."""
    try:
        yield
    except OSError as error:
        raise _cannot_save(folder, error) from error


def file_contents(
    tensors: Mapping[str, Mapping[str, Tensor]], documents: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, Chunks]:
    """File name -> its bytes, produced when they are written."""
    named: list[tuple[str, Chunks]] = [(file_name(name), safetensors_chunks(tensors[name])) for name in tensors]
    named += [(f"{name}.json", iter([json.dumps(value).encode("utf-8")])) for name, value in documents.items()]
    named += [(name, iter([data])) for name, data in files.items()]
    contents = {check_name(name): chunks for name, chunks in named}
    if len(contents) < len(named):
        raise UserError("two parts of a checkpoint have the same file name", where=", ".join(name for name, _ in named))
    return contents


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        sync_folder(folder.parent)


def _move_in(temporary: Path, target: Path) -> None:
    """Give the finished folder its name; a folder that has it already is parked until the new one is on the disk."""
    parked = target.with_name(f"{target.name}.old")
    if target.exists():
        if parked.exists():
            remove_folder(parked if why_invalid(target) is None else target)
        if target.exists():
            os.rename(target, parked)
    try:
        os.rename(temporary, target)
    except BaseException:
        if parked.exists() and not target.exists():
            os.rename(parked, target)
        raise
    sync_folder(target.parent)
    # The save is done: a parked folder that stays is harmless, and `clean_temporary` finds it.
    if parked.exists():
        with suppress(OSError):
            remove_folder(parked)


def _cannot_save(folder: Path, error: OSError) -> UserError:
    last = newest(folder, verify=False)
    do = "make room or choose another out= (no checkpoint was saved before)"
    if last is not None:
        do = f"make room, then use --resume (the last good checkpoint is {last.path})"
    return UserError(f"cannot save a checkpoint: {error.strerror or error}", where=str(folder), do=do)


def prune(
    folder: Path | str, *, keep: int = 2, protect: Collection[int] = (), written: Collection[Path] = ()
) -> list[Path]:
    """Remove all but the newest `keep` checkpoints (at least two) and the protected steps; give what was removed.

    What stays is held to its hashes first, so that no older checkpoint is superseded by a damaged one; those that this
    process has `written` are not read again. Folders that are not valid are left to look at, and one that cannot be
    removed costs a warning.
    """
    held = valid_checkpoints(Path(folder), verify=False)
    whole = (one for one in held if one.path in written or why_invalid(one.path) is None)
    kept = list(islice(whole, max(keep, 2)))
    old = held if len(kept) == max(keep, 2) else ()
    return [one.path for one in old if one.step not in protect and _removed(one.path)]


def _removed(path: Path) -> bool:
    try:
        remove_folder(path)
    except OSError as error:
        warnings.warn(f"{path}: cannot be removed ({error.strerror or error}): remove it yourself", stacklevel=4)
        return False
    return True


def clean_temporary(folder: Path | str) -> list[Path]:
    """Remove what crashed saves left behind; give what was removed. Only for the process that owns the run."""
    folder = Path(folder)
    left = [path for path in folder.iterdir() if path.name.startswith(TEMPORARY)] if folder.is_dir() else []
    for path in left:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    for parked in folder.glob("step-*.old"):
        if why_invalid(parked.with_suffix("")) is None:
            remove_folder(parked)
            left.append(parked)
    return left
