"""From the path or address in a config to the archives that are meant, each with its record.

Local paths and https only. What comes from elsewhere is fetched once into a cache and read from there; whatever an
address or an index calls a file, its name on this disk is ours.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from colatent.data.fetch import Cache
from colatent.data.index import INDEX, Shard, parse_index, suffixes_of
from colatent.data.scan import check_suffix, scan
from colatent.errors import UserError

MOST_NAMES = 100_000
"""Names that one pattern may stand for."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """An archive on this disk, and what lies in it."""

    path: Path
    shard: Shard


def locate(path: str, *, cache: str | None = None) -> list[Located]:
    """The archives at a path or address, in order."""
    found = [one for name in expand(path) for one in _locate_one(name, Cache.at(cache))]
    if not found:
        raise UserError(f"holds neither {INDEX} nor a .tar file", where=path, do="name a folder of shards")
    return found


def expand(path: str) -> list[str]:
    """The names that a pattern with `{000..127}` stands for."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if found is None:
        return [path]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MOST_NAMES:
        raise UserError(f"{found[0]} does not count up, or too far", where=path, do="write {000..127}")
    width = len(found[1])
    heads = (f"{path[: found.start()]}{number:0{width}d}" for number in range(first, last + 1))
    return [head + tail for head in heads for tail in expand(path[found.end() :])]


def _locate_one(name: str, cache: Cache) -> list[Located]:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", name)
    if scheme is None:
        return _local(Path(name))
    if scheme[1].lower() != "https" or not name.lower().startswith("https://"):
        what = f"{scheme[0]} is not a way by which shards come"
        raise UserError(what, where=name, do="give a path on this disk or an address that begins with https://")
    if name.endswith(f"/{INDEX}"):
        base, shards = name.removesuffix(INDEX), _shards(cache.fetch(name), where=name)
        return [Located(path=cache.fetch(base + one.name, shard=one), shard=one) for one in shards]
    return [_scanned(cache.fetch(name))]


def _local(path: Path) -> list[Located]:
    try:
        if path.is_file():
            return _indexed(path) if path.name == INDEX else [_scanned(path)]
        if not path.is_dir():
            raise UserError("no such file or folder", where=str(path), do="check the path")
        if (path / INDEX).is_file():
            return _indexed(path / INDEX)
        return [_scanned(each) for each in sorted(path.glob("*.tar")) if not each.name.startswith(".")]
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise UserError(what, where=str(path), do="check the path and its rights") from error


def _indexed(index: Path) -> list[Located]:
    return [Located(path=index.parent / one.name, shard=one) for one in _shards(index, where=str(index))]


def _scanned(path: Path) -> Located:
    facts = path.stat()
    return Located(path=path, shard=_scan(path, facts.st_size, facts.st_mtime_ns))


def _shards(index: Path, *, where: str) -> tuple[Shard, ...]:
    facts = index.stat()
    return _read(index, facts.st_size, facts.st_mtime_ns, where=where)


# Each split of a dataset opens its own; records are made once, and size and time tell whether a file is still the same.


@lru_cache(maxsize=16)
def _read(index: Path, size: int, changed: int, *, where: str) -> tuple[Shard, ...]:
    shards = parse_index(index.read_bytes(), where=where)
    for suffix in suffixes_of(shards):
        check_suffix(suffix, name=f"*.{suffix}", where=where)
    return tuple(shards)


@lru_cache(maxsize=1024)
def _scan(path: Path, size: int, changed: int) -> Shard:
    found = scan(path)
    what = f"{path} has no {INDEX}: {len(found.keys)} samples were found by looking through it, without checksums"
    warnings.warn(f"{what}; {found.problem}" if found.problem else what, stacklevel=2)
    return found
