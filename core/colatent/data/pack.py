"""Writing shards: raw samples as WebDataset tar archives with an index, whole or not at all.

Everything is written into a temporary folder beside the one that is asked for, synced, and renamed in the end: what was
interrupted has no name that anyone would read. The same samples give the same bytes, whenever and by whomever. An
index is made by reading back what was written, so it tells what is there and not what was meant.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colatent.checkpoint.storage import hash_file, sync_folder, temporary_beside, write_chunks
from colatent.data.index import INDEX, Shard, index_bytes, suffixes_of
from colatent.data.raw import Files, Raw
from colatent.data.scan import scan
from colatent.errors import UserError

MIB = 2**20
SHARD_BYTES = 256 * MIB
"""Size at which a shard is ended; its last sample may go beyond."""
Progress = Callable[[int, int], None]
"""Told the samples and bytes that are written."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What was written."""

    path: Path
    shards: tuple[Shard, ...]

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        shards = [{"name": one.name, "samples": len(one.keys), "size": one.size} for one in self.shards]
        return {
            "path": str(self.path),
            "samples": sum(len(one.keys) for one in self.shards),
            "bytes": sum(one.size for one in self.shards),
            "suffixes": suffixes_of(self.shards),
            "shards": shards,
        }


def pack(raw: Raw, out: Path, *, shard_bytes: int = SHARD_BYTES, progress: Progress = lambda *_: None) -> Packed:
    """Write samples as shards into the folder `out`, which must not exist or be empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("exists already", where=str(out), do="choose another OUT, or remove it")
    aside = temporary_beside(out.absolute())
    try:
        aside.mkdir(parents=True)
        shards = _write(raw, aside, shard_bytes, progress)
        write_chunks(aside / INDEX, [index_bytes(shards)])
        sync_folder(aside)
        os.rename(aside, out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise UserError(what, where=str(out), do="make room, or choose another OUT") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Packed(path=out, shards=tuple(shards))


def _write(raw: Raw, folder: Path, shard_bytes: int, progress: Progress) -> list[Shard]:
    shards: list[Shard] = []
    samples, written, before = raw.samples, 0, 0
    pending = _next(samples)
    while pending is not None:
        path = folder / f"{len(shards):06d}.tar"
        with _archive(path) as archive:
            while pending is not None and archive.tarstream.offset < shard_bytes:
                key, files = pending
                archive.write({"__key__": key, **files})
                written += 1
                progress(written, before + archive.tarstream.offset)
                pending = _next(samples)
        found = scan(path, hashed=True)
        shards.append(found.model_copy(update={"sha256": hash_file(path)}))
        before += found.size
    if not written:
        raise UserError("there is nothing to pack", do="check SRC, and --suffixes")
    assert sum(len(shard.keys) for shard in shards) == written, "a sample was not found again"
    return shards


@contextmanager
def _archive(path: Path) -> Iterator[Any]:
    """A tar archive under way, in which nothing tells when or by whom it was written; synced when it ends."""
    from webdataset.writer import TarWriter

    with open(path, "xb") as file:
        with TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False, keep_meta=True) as archive:
            yield archive
        file.flush()
        os.fsync(file.fileno())


def _next(samples: Iterator[tuple[str, Files]]) -> tuple[str, Files] | None:
    """The next sample; what cannot be read is told apart from what cannot be written."""
    try:
        return next(samples, None)
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise UserError(what, where=str(error.filename or "SRC"), do="check it and its rights") from error
