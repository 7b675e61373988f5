"""A checkpoint that several processes write at once, each what it holds a share of.

The first process makes the folder, writes what is not shared, and seals it when all have told size and hash of what
they have on the disk. Only that gives the folder its name: whichever process dies, and when, there is no half
checkpoint, and the older ones are as they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from colatent.checkpoint.manifest import FileRecord, Manifest
from colatent.checkpoint.rows import file_name
from colatent.checkpoint.tensors import safetensors_chunks
from colatent.checkpoint.write import Draft, drafted, file_contents, saving, step_folder, write_checkpoint


class Peers(Protocol):
    """The processes that train together, as one of them sees them; see `World` of the training."""

    rank: int
    size: int

    def gather(self, text: str) -> list[str]:
        """What each says, in their order."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """What one refuses inside, all refuse; nobody goes on before all have come to the end."""
        ...


def write_together(
    folder: Path,
    *,
    peers: Peers,
    step: int,
    shares: Mapping[str, Mapping[str, Tensor]],
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Any],
    files: Mapping[str, bytes],
    fingerprint: str,
    versions: Mapping[str, str],
) -> None:
    """Save a checkpoint. `shares` are this process's rows of the tensors of groups that are cut, in the order of the
    processes; all else is taken from the first one. All must ask alike."""
    known: dict[str, Any] = {"step": step, "fingerprint": fingerprint, "versions": versions}
    if not shares:
        with peers.together():
            if peers.rank == 0:
                write_checkpoint(folder, tensors=tensors, documents=documents, files=files, **known)
        return
    names = {group: file_name(group, number=peers.rank, of=peers.size) for group in shares}
    own = {names[group]: safetensors_chunks(some) for group, some in shares.items()}
    with ExitStack() as held:
        records: dict[str, FileRecord] = {}
        draft: Draft | None = None
        with peers.together():
            if peers.rank == 0:
                draft = held.enter_context(drafted(folder, step=step))
                with saving(folder):
                    records = draft.add(file_contents(tensors, documents, files))
        path = folder / peers.gather(draft.path.name if draft else "")[0]
        with peers.together(), saving(folder):
            records |= Draft(path=path, target=step_folder(folder, step)).add(own)
        told = peers.gather(json.dumps({name: asdict(record) for name, record in records.items()}))
        every = {name: FileRecord(**record) for some in told for name, record in json.loads(some).items()}
        with peers.together(), saving(folder):
            if draft:
                draft.seal(Manifest(files=every, **known))
