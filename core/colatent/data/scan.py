"""Looking through a tar archive: which samples it holds, and where the bytes of their files lie.

A sample is the files in a row whose names are alike up to the first dot, as WebDataset has it. Names are only ever
keys: nothing is unpacked, and no name becomes a path. What is no plain file, or a pickle by its name, is refused: this
is the one door through which archives of strangers come in. Python's tarfile takes a header that it cannot read for the
end of the archive; that is looked for here, since it would mean fewer samples without a word.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from colatent.data.index import Member, Shard, checksum
from colatent.errors import UserError

NAMED = re.compile(r"((?:.*/)?[^/.]+)\.([^/.\s]+(?:\.[^/.\s]+)*)", re.DOTALL)
"""Key and suffix in the name of a member."""
LONGEST = 100
"""Characters of a suffix, at most."""
PICKLES = frozenset({"pyd", "pkl", "pickle", "pth", "pt", "ckpt", "joblib", "dill", "cpkl"})
"""Suffixes of files that run code when their usual readers open them."""
BLOCK = tarfile.BLOCKSIZE


def is_pickle(suffix: str) -> bool:
    """Whether files of this suffix are pickles."""
    return suffix.rpartition(".")[2].lower() in PICKLES


def check_suffix(suffix: str, *, name: str, where: str) -> None:
    """Refuse a file that is a pickle by its name."""
    if is_pickle(suffix):
        what = f"{name!r} is a pickle by its name, and reading one can run code"
        raise UserError(what, where=where, do="store arrays as .npy or .safetensors, all else as its own format")


def scan(path: Path, *, hashed: bool = False) -> Shard:
    """The record of an archive. Where it cannot be read to its end, what is lost is estimated.

    hashed  whether to read every file too, for its checksum
    """
    samples: list[tuple[str, dict[str, Member]]] = []
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            reader = _Reader(file, size=size)
            for name, start, length in reader.members(str(path)):
                _add(samples, name, (start, length, _hash(file, start, length) if hashed else ""), where=str(path))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=str(path), do="check the path") from error
    problem, lost = "", 0
    if reader.problem:
        problem = f"{reader.problem} after byte {reader.end} of {size}"
        lost = max(1, round((size - reader.end) * len(samples) / max(reader.end, BLOCK)))
    keys, members = tuple(key for key, _ in samples), tuple(files for _, files in samples)
    return Shard(name=_plain(path.name), size=size, keys=keys, members=members, problem=problem, lost=lost)


class _Reader:
    """The plain files of an archive in order, and how far it could be read.

    problem  what stands where the archive should go on or end; empty where it is whole
    end      up to where it could be read
    """

    def __init__(self, file: BinaryIO, *, size: int) -> None:
        self._file, self._size = file, size
        self.problem, self.end = "", 0

    def members(self, where: str) -> Iterator[tuple[str, int, int]]:
        """Name, first byte and length of each file."""
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                for info in archive:
                    archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                    if info.size < 0:
                        self.problem = f"{info.name[:80]!r} has a negative size"
                        return
                    if info.offset_data + info.size > self._size:
                        self.problem = f"it is cut short in {info.name[:80]!r}"
                        return
                    self.end = archive.offset
                    if not info.isdir():
                        yield _checked(info, where=where), info.offset_data, info.size
                self._check_end(archive.offset)
        except (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            if not self.end:
                raise UserError("is no tar archive", where=where, do="give an uncompressed .tar file") from error
            self.problem = "it cannot be read"

    def _check_end(self, offset: int) -> None:
        self._file.seek(offset)
        block = self._file.read(BLOCK)
        if len(block) < BLOCK:
            self.problem = "it is cut short"
        elif block.strip(b"\0"):
            self.problem = "a header is damaged"
        elif any(chunk.strip(b"\0") for chunk in iter(partial(self._file.read, 2**20), b"")):
            self.problem = "something follows its end"


def _checked(info: tarfile.TarInfo, *, where: str) -> str:
    """The name of a member that is a plain file; bytes in it that are not UTF-8 are replaced."""
    if not info.isreg() or info.issparse():
        what = f"member {info.name[:80]!r} is no plain file (a link, a device or a file with holes)"
        raise UserError(what, where=where, do="pack it again with plain files only")
    return info.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _add(samples: list[tuple[str, dict[str, Member]]], name: str, member: Member, *, where: str) -> None:
    """Put a file to the sample it belongs to; one whose name has no suffix belongs to none."""
    found = NAMED.fullmatch(name)
    if found is None or len(suffix := found[2].lower()) > LONGEST:
        return
    key = found[1]
    check_suffix(suffix, name=name[:80], where=where)
    if not samples or samples[-1][0] != key or suffix in samples[-1][1]:
        samples.append((key, {}))
    samples[-1][1][suffix] = member


def _hash(file: BinaryIO, start: int, size: int) -> str:
    file.seek(start)
    return checksum(file.read(size))


def _plain(name: str) -> str:
    """A file's name as a record has it: whatever else stands in it, it is for people only."""
    return (re.sub(r"[^\w.-]", "_", name.removesuffix(".tar")).lstrip(".") or "shard") + ".tar"
