"""The index of packed shards: what lies where in each archive, and what it must look like.

`shards.json` is written last and holds a hash of itself, so a folder that has a valid one was finished. Shards made
elsewhere have none; the same records are then made by looking through the archives, without checksums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, StringConstraints, ValidationError, model_validator

from colatent.config.settings import Settings
from colatent.errors import UserError
from colatent.jsons import parse_json

FORMAT = 1
"""Version of the index; a reader refuses every other."""
INDEX = "shards.json"
DIGITS = 16
"""Hexadecimal digits of a member's sha256 that are kept: it is there to find damage, the shard's own is whole."""
DAMAGED = "pack the data again, or copy the folder again"

Suffix = Annotated[str, StringConstraints(pattern=r"^[^/.\s]+(\.[^/.\s]+)*$", max_length=100)]
Member = tuple[NonNegativeInt, NonNegativeInt, str]
"""Where a file's bytes begin in the archive, how many there are, and the first `DIGITS` of their sha256, or nothing."""


class Shard(Settings):
    """One archive.

    keys     of its samples, in the archive's order
    members  of each sample: the files by the suffix of their names
    problem  why an archive without index could not be read to its end; empty where it could
    lost     samples that are thought to have stood there
    """

    name: str = Field(pattern=r"^[\w-][\w.-]*\.tar$")
    size: NonNegativeInt
    sha256: str = ""
    keys: tuple[str, ...]
    members: tuple[dict[Suffix, Member], ...]
    problem: str = ""
    lost: NonNegativeInt = 0

    @model_validator(mode="after")
    def _fits(self) -> Shard:
        if len(self.keys) != len(self.members):
            raise ValueError(f"{len(self.keys)} keys for {len(self.members)} samples")
        if any(start + size > self.size for files in self.members for start, size, _ in files.values()):
            raise ValueError("a member ends behind the archive's end")
        return self

    def suffixes(self) -> set[str]:
        """Every suffix that a file has."""
        return {suffix for files in self.members for suffix in files}


def checksum(data: bytes) -> str:
    """The part of a member's sha256 that an index keeps."""
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def shown(key: str) -> str:
    """A key for a line that people read: short, and without what would move their cursor."""
    return key[:80] if key.isprintable() else repr(key[:80])


def suffixes_of(shards: Iterable[Shard]) -> list[str]:
    """Every suffix that a file in these shards has, in order."""
    return sorted(set().union(*(shard.suffixes() for shard in shards)))


def index_bytes(shards: Iterable[Shard]) -> bytes:
    """The index as JSON, sealed with its own hash; a shard is a line."""
    held = list(shards)
    lines = ",\n".join(
        json.dumps(
            {
                **shard.model_dump(mode="json", include={"name", "size", "sha256"}),
                "samples": len(shard.keys),
                "suffixes": sorted(shard.suffixes()),
                **shard.model_dump(mode="json", include={"keys", "members"}),
            },
            separators=(",", ":"),
        )
        for shard in held
    )
    seal = hashlib.sha256(lines.encode()).hexdigest()
    samples = sum(len(shard.keys) for shard in held)
    head = f'"format": {FORMAT},\n"samples": {samples},\n"sha256": "{seal}"'
    return f'{{\n{head},\n"shards": [\n{lines}\n]\n}}\n'.encode()


def parse_index(data: bytes, *, where: str) -> list[Shard]:
    """The shards that an index tells of."""
    payload = _load(data, where=where)
    if payload["format"] != FORMAT:
        do = "use the colatent that packed it, or pack the data again"
        raise UserError(f"written by format {payload['format']!r}, this colatent reads {FORMAT}", where=where, do=do)
    # What is sealed are the bytes: what stands round them is no part of what is read.
    lines = data.partition(b'"shards": [\n')[2].removesuffix(b"\n]\n}\n")
    if payload.get("sha256") != hashlib.sha256(lines).hexdigest():
        raise UserError("does not match its own hash", where=where, do=DAMAGED)
    try:
        return [_shard(record) for record in payload["shards"]]
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise UserError("does not say where its samples are", where=where, do=DAMAGED) from error


def _shard(record: Mapping[str, Any]) -> Shard:
    return Shard(**{name: record[name] for name in ("name", "size", "sha256", "keys", "members")})


def _load(data: bytes, *, where: str) -> dict[str, Any]:
    try:
        payload = parse_json(data)
    except ValueError as error:
        raise UserError("is not JSON", where=where, do=DAMAGED) from error
    if not isinstance(payload, dict) or "format" not in payload:
        raise UserError("is not an index of shards", where=where, do="name a folder that colatent data pack wrote")
    return payload
