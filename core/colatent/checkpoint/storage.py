"""Bytes that are on the disk when a function returns, and names that never show half a file.

Everything that lasts is written through here: under a temporary name, synced, then renamed. Files are opened by Python
itself, so that permissions follow the umask and a full disk is an `OSError` with its errno. Temporary names start with
`.tmp-`, lie beside what they become, and are worth nothing once the process that made them is gone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from colatent.errors import UserError

TEMPORARY = ".tmp-"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size in bytes and sha256 of a file's content."""

    size: int
    sha256: str


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> FileRecord:
    """Write a new file chunk by chunk and sync it; only one chunk is held at a time."""
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += memoryview(chunk).nbytes
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(size=size, sha256=digest.hexdigest())


def hash_file(path: Path) -> str:
    """The sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> Path:
    """A folder for results, made before the work that they cost. Raises `UserError` where it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot be used as a folder: {error.strerror or error}"
        raise UserError(what, where=str(path), do="choose another --out") from error
    return path


@contextmanager
def result_folder(path: Path) -> Iterator[Path]:
    """`make_folder`, and away with it again where it is new and nothing came of the work."""
    there = path.exists()
    make_folder(path)
    try:
        yield path
    finally:
        if not there:
            with suppress(OSError):  # not empty
                path.rmdir()


def size_below(path: Path) -> int:
    """Bytes of a file, or of all files below a folder that are there when it is looked at; links count as links."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):  # somebody writes here meanwhile
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last: a rename is only on the disk once its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """A temporary name in the same folder (so that a rename is atomic), used by nobody else."""
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def maker_lives(temporary: Path) -> bool:
    """Whether a process of the number in a temporary name is there, on this machine."""
    number = temporary.name.rpartition("-")[0].rpartition("-")[2]
    try:
        os.kill(int(number), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def atomic_write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Replace a file as a whole: after a crash it holds the old bytes or the new ones."""
    temporary = temporary_beside(path)
    try:
        write_chunks(temporary, chunks)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        do = "make room or write elsewhere"
        raise UserError(f"cannot be written: {error.strerror or error}", where=str(path), do=do) from error
    finally:
        with suppress(OSError):  # a disk that is read only refuses this too, and must not hide why
            temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """`atomic_write_chunks` of bytes that are there already."""
    atomic_write_chunks(path, [data])


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` in UTF-8."""
    atomic_write_bytes(path, text.encode("utf-8"))


def remove_folder(folder: Path) -> None:
    """Remove a folder as a whole: a crash halfway leaves a temporary name, never a folder with files missing."""
    aside = temporary_beside(folder)
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)
