"""The checkpoints of a stage under training: all processes write one together, and go on from the same one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from colatent.checkpoint.folder import Checkpoint, newest, read_checkpoint
from colatent.checkpoint.together import write_together
from colatent.checkpoint.write import clean_temporary, prune, step_folder
from colatent.train.engine import is_cut, own_rows
from colatent.train.progress import Reporter
from colatent.train.versions import versions
from colatent.train.world import World


class Saved:
    """The checkpoints in one folder. All processes must ask alike."""

    def __init__(self, folder: Path, *, world: World, fingerprint: str, reporter: Reporter) -> None:
        self._folder, self._world, self._fingerprint, self._reporter = folder, world, fingerprint, reporter
        self._written: set[Path] = set()

    def write(
        self,
        step: int,
        *,
        tensors: Mapping[str, Mapping[str, Tensor]],
        documents: Mapping[str, Any],
        files: Mapping[str, bytes],
    ) -> None:
        """Write a checkpoint, of tensors that are cut each process its rows, and drop the oldest ones."""
        shared = {name: group for name, group in tensors.items() if is_cut(group)}
        write_together(
            self._folder,
            peers=self._world,
            step=step,
            shares={name: own_rows(group, leads=self._world.leads) for name, group in shared.items()},
            tensors={name: group for name, group in tensors.items() if group and name not in shared},
            documents=documents,
            files=files,
            fingerprint=self._fingerprint,
            versions=versions(),
        )
        if self._world.leads:
            self._written.add(step_folder(self._folder, step))
            prune(self._folder, keep=2, written=self._written)

    def newest(self) -> Checkpoint | None:
        """The one that the first process finds to be the newest valid one."""
        found = None
        if self._world.leads:
            clean_temporary(self._folder)
            found = newest(self._folder, on_skip=self._reporter.skipped)
        name = self._world.gather(found.path.name if found else "")[0]
        return read_checkpoint(self._folder / name) if name and not found else found
