"""Writing checkpoints: as a whole or not at all.

A checkpoint is written aside, synced, sealed by its manifest and renamed to `step-00001234`. A step that is written
again first parks the old folder as `step-00001234.old`, which readers accept too: folders cannot be exchanged in one
move everywhere, and so there is still no moment without a valid one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from colatent.checkpoint.folder import newest, valid_checkpoints, why_invalid
from colatent.checkpoint.manifest import MANIFEST, Manifest, check_name, manifest_bytes
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
    folder = Path(folder)
    contents = _contents(tensors, documents, files)
    target = step_folder(folder, step)
    temporary = temporary_beside(target)
    try:
        _make_folder(folder)
        records = _write_files(temporary, contents)
        manifest = Manifest(step=step, files=records, versions=versions, fingerprint=fingerprint)
        write_chunks(temporary / MANIFEST, [manifest_bytes(manifest)])
        sync_folder(temporary)
        _move_in(temporary, target)
    except OSError as error:
        raise _cannot_save(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _contents(
    tensors: Mapping[str, Mapping[str, Tensor]], documents: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, Chunks]:
    """File name -> its bytes, produced when they are written."""
    named: list[tuple[str, Chunks]] = [(f"{name}.safetensors", safetensors_chunks(tensors[name])) for name in tensors]
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


def _write_files(folder: Path, contents: Mapping[str, Chunks]) -> dict[str, FileRecord]:
    """Write and sync all files and the sub-folders that they lie in."""
    os.mkdir(folder)
    records = {}
    for name, chunks in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        records[name] = write_chunks(path, chunks)
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
    return records


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


def prune(folder: Path | str, *, keep: int = 2, protect: Collection[int] = ()) -> list[Path]:
    """Remove all but the newest `keep` checkpoints (at least two) and the protected steps; give what was removed.

    Hashes are not read again here: it is called after every save. Folders that are not valid are left to look at.
    """
    old = list(valid_checkpoints(Path(folder), verify=False))[max(keep, 2) :]
    removed = [checkpoint.path for checkpoint in old if checkpoint.step not in protect]
    for path in removed:
        remove_folder(path)
    return removed


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
