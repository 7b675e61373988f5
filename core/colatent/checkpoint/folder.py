"""Reading checkpoints: one folder, or the newest valid one among many.

A checkpoint holds named groups of tensors, JSON documents and plain files, and knows nothing of models. Truth is the
newest folder with a valid manifest; a folder that is not valid is skipped with its reason, never repaired.
`step-00001234.old` was being replaced when the process died; it counts where its successor is not valid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from colatent.checkpoint.manifest import DAMAGED, MANIFEST, Manifest, check_file, parse_manifest
from colatent.checkpoint.rows import Rows, file_name, files_by_group
from colatent.checkpoint.tensors import read_safetensors
from colatent.errors import UserError
from colatent.jsons import parse_json

OnSkip = Callable[[Path, str], None]

_STEP = re.compile(r"step-(\d+)(\.old)?")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files were checked; its content is read when it is asked for."""

    path: Path
    step: int
    manifest: Manifest

    def has(self, group: str) -> bool:
        """Whether there is a group of tensors of that name."""
        return group in files_by_group(self.manifest.files)

    def groups(self) -> dict[str, list[Path]]:
        """The groups of tensors by name, each with its files."""
        return {
            name: [self.path / file for file in files] for name, files in files_by_group(self.manifest.files).items()
        }

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors of a group, on the CPU."""
        paths = self._files(group)
        return read_safetensors(paths[0]) if len(paths) == 1 else dict(Rows(paths))

    def rows(self, group: str) -> Rows:
        """The same, of which as many rows are read as are asked for."""
        return Rows(self._files(group))

    def document(self, name: str) -> Any:
        """The JSON document of that name."""
        path = self._path(f"{name}.json")
        try:
            return parse_json(path.read_bytes())
        except ValueError as error:
            raise UserError("is not JSON", where=str(path), do=DAMAGED) from error

    def file(self, name: str) -> bytes:
        """The bytes of one file, by its path below the checkpoint."""
        return self._path(name).read_bytes()

    def files(self, folder: str) -> dict[str, bytes]:
        """The files below a sub-folder, by their path below it; empty where there are none."""
        start = f"{folder}/"
        return {name[len(start) :]: self.file(name) for name in self.manifest.files if name.startswith(start)}

    def _files(self, group: str) -> list[Path]:
        names = files_by_group(self.manifest.files).get(group, [file_name(group)])
        return [self._path(name) for name in names]

    def _path(self, name: str) -> Path:
        if name not in self.manifest.files:
            held = ", ".join(sorted(self.manifest.files))
            raise UserError(f"this checkpoint has no {name}, it holds {held}", where=str(self.path))
        return self.path / name


def read_checkpoint(path: Path | str, *, verify: bool = True) -> Checkpoint:
    """The checkpoint in a step folder. Sizes are always checked, hashes unless `verify` is off."""
    path = Path(path)
    where = path / MANIFEST
    try:
        data = where.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        do = "name a run folder, or a step folder inside its checkpoints/"
        raise UserError(f"is not a checkpoint: it has no {MANIFEST}", where=str(path), do=do) from error
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(where), do=DAMAGED) from error
    manifest = parse_manifest(data, where=str(where))
    for name, record in manifest.files.items():
        check_file(path / name, record, verify=verify)
    return Checkpoint(path=path, step=manifest.step, manifest=manifest)


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Step folders, newest first; a parked one comes after the one that replaces it."""
    try:
        paths = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(folder)) from error
    found = []
    for path in paths:
        match = _STEP.fullmatch(path.name)
        if match:
            found.append((int(match[1]), match[2] is None, path))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def valid_checkpoints(folder: Path, *, verify: bool, on_skip: OnSkip | None = None) -> Iterator[Checkpoint]:
    """Valid checkpoints, newest first, one per step."""
    last_step = None
    for step, path in _candidates(folder):
        if step == last_step:
            continue
        try:
            checkpoint = read_checkpoint(path, verify=verify)
            if checkpoint.step != step:
                raise UserError(f"holds step {checkpoint.step}", where=str(path))
        except UserError as error:
            if on_skip is not None:
                on_skip(path, str(error))
            continue
        last_step = step
        yield checkpoint


def why_invalid(path: Path) -> str | None:
    """Why a folder is no valid checkpoint, None where it is one."""
    try:
        read_checkpoint(path)
    except UserError as error:
        return str(error)
    return None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A step folder that is no valid checkpoint, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """All step folders of a folder: the valid ones newest first, and the others."""

    valid: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


def scan(folder: Path | str, *, verify: bool = True) -> Scan:
    """Look at every step folder."""
    skipped: list[Skipped] = []

    def on_skip(path: Path, reason: str) -> None:
        skipped.append(Skipped(path=path, reason=reason))

    valid = tuple(checkpoint.path for checkpoint in valid_checkpoints(Path(folder), verify=verify, on_skip=on_skip))
    return Scan(valid=valid, skipped=tuple(skipped))


def newest(folder: Path | str, *, verify: bool = True, on_skip: OnSkip | None = None) -> Checkpoint | None:
    """The newest valid checkpoint; `on_skip(path, reason)` hears of the newer folders that are not valid."""
    return next(valid_checkpoints(Path(folder), verify=verify, on_skip=on_skip), None)
