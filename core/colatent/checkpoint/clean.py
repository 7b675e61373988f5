"""What a run folder no longer needs, and its removal.

Of a finished run that is every checkpoint but the newest of each stage; of any run that no process writes to, what
crashed saves left behind. Links are neither followed nor removed, and what stays is held to its hashes first: an old
checkpoint is not superseded by a damaged one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from colatent.checkpoint.folder import valid_checkpoints, why_invalid
from colatent.checkpoint.run import FINISHED, RunFolder, undisturbed
from colatent.checkpoint.storage import TEMPORARY, maker_lives, remove_folder, size_below

PARKED = ".old"


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or folder that is no longer needed, why, and what it takes."""

    path: Path
    reason: str
    size: int


def leftovers(run: RunFolder, *, keep: int = 1, protect: Collection[Path] = ()) -> list[Leftover]:
    """What may be removed of a run; nothing while a process writes to it.

    keep     valid checkpoints that stay, of each stage
    protect  folders that stay, as other runs start from them, in the words of their configs
    """
    with undisturbed(run.path) as quiet:
        return _leftovers(run, keep=keep, protect=protect) if quiet else []


def remove(run: RunFolder, found: Sequence[Leftover], *, keep: int = 1, protect: Collection[Path] = ()) -> int:
    """Remove what is still not needed of `found`; gives the bytes. No run can begin meanwhile."""
    with undisturbed(run.path) as quiet:
        still = {one.path for one in _leftovers(run, keep=keep, protect=protect)} if quiet else set()
        gone = [one for one in found if one.path in still]
        for one in gone:
            if one.path.name.startswith(TEMPORARY):
                shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
            else:
                remove_folder(one.path)
    return sum(one.size for one in gone)


def _leftovers(run: RunFolder, *, keep: int, protect: Collection[Path]) -> list[Leftover]:
    found = [*_temporary(run.path)]
    for folder in _folders(run.path / "checkpoints"):
        found += _parked(folder)
        if run.state().status == FINISHED:
            found += [_leftover(path, "superseded") for path in _superseded(folder, keep=keep)]
    return [one for one in found if not any(_may_be(one.path, path) for path in protect)]


def _may_be(path: Path, named: Path) -> bool:
    """Whether a config may mean this folder. What stands before a path there, a working folder or a `${...}`, is not
    known here: then its end decides, since a checkpoint too many does no harm."""
    path = path.resolve()
    unknown = [place for place, part in enumerate(named.parts) if part == ".." or "}" in part]
    end = named.parts[max(unknown, default=-1) + 1 :]
    return path == named.resolve() or path.parts[-len(end) :] == end


def _folders(parent: Path) -> list[Path]:
    """Folders in a folder, neither of them a link."""
    inside = parent.iterdir() if parent.is_dir() and not parent.is_symlink() else ()
    return sorted(path for path in inside if path.is_dir() and not path.is_symlink())


def _temporary(folder: Path) -> Iterator[Leftover]:
    """What was written aside and never moved to its place, anywhere in a run."""
    for parent, folders, files in os.walk(folder):
        for name in (name for name in [*folders, *files] if name.startswith(TEMPORARY)):
            path = Path(parent) / name
            if not path.is_symlink() and not maker_lives(path):  # samples are gathered without the lock
                yield _leftover(path, "left by a crash")
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]


def _parked(folder: Path) -> list[Leftover]:
    """Checkpoints that were moved aside for another of the same step, which is there."""
    parked = [path for path in _folders(folder) if path.suffix == PARKED and path.name.startswith("step-")]
    return [_leftover(path, "left by a crash") for path in parked if why_invalid(path.with_suffix("")) is None]


def _superseded(folder: Path, *, keep: int) -> list[Path]:
    """Valid checkpoints older than the newest `keep` that are whole to the last bit."""
    whole = (one for one in valid_checkpoints(folder, verify=True) if not one.path.is_symlink())
    kept = [one.step for _, one in zip(range(max(1, keep)), whole, strict=False)]
    if len(kept) < max(1, keep):
        return []
    older = (one for one in valid_checkpoints(folder, verify=False) if one.step < min(kept))
    return [one.path for one in older if not one.path.is_symlink()]


def _leftover(path: Path, reason: str) -> Leftover:
    return Leftover(path=path, reason=reason, size=size_below(path))
