"""The manifest: the list of a checkpoint's files that makes a folder a checkpoint.

It is written last and holds a hash of itself, so a folder with a valid manifest was finished. File names in it are
relative, and are checked when they are read as well as when they are written: a checkpoint may come from anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from colatent.checkpoint.storage import FileRecord, hash_file
from colatent.errors import UserError
from colatent.jsons import parse_json

FORMAT = 1
"""Version of the layout of a checkpoint folder; a reader refuses every other."""

MANIFEST = "manifest.json"

DAMAGED = "this checkpoint is damaged: use another one, or copy it again"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint holds.

    step         the training step it was taken after
    files        relative path -> size and sha256
    versions     package -> version that wrote it
    fingerprint  of the set of plugins in force
    """

    step: int
    files: Mapping[str, FileRecord]
    versions: Mapping[str, str]
    fingerprint: str


def check_name(name: str, *, where: str | None = None) -> str:
    """`name` itself if it is a plain relative path below the checkpoint's folder."""
    path = PurePosixPath(name)
    plain = bool(path.parts) and str(path) == name and not path.is_absolute() and ".." not in path.parts
    if not plain or "\\" in name or "\0" in name or name == MANIFEST:
        do = "use a relative path without '..'"
        raise UserError(f"{name!r} cannot be the name of a file in a checkpoint", where=where, do=do)
    return name


def _self_hash(payload: Mapping[str, Any]) -> str:
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as JSON, sealed with its own hash."""
    payload: dict[str, Any] = {
        "format": FORMAT,
        "step": manifest.step,
        "files": {name: asdict(record) for name, record in manifest.files.items()},
        "versions": dict(manifest.versions),
        "fingerprint": manifest.fingerprint,
    }
    return json.dumps({**payload, "sha256": _self_hash(payload)}, indent=2).encode("utf-8") + b"\n"


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """The manifest in `data`. The format is looked at first: another one may seal itself in another way."""
    payload = _load(data, where=where)
    if payload["format"] != FORMAT:
        do = "use the colatent that wrote it, or another checkpoint"
        raise UserError(f"written by format {payload['format']}, this colatent reads {FORMAT}", where=where, do=do)
    if payload.pop("sha256", None) != _self_hash(payload):
        raise UserError("does not match its own hash", where=where, do=DAMAGED)
    files = {check_name(name, where=where): FileRecord(**record) for name, record in payload["files"].items()}
    return Manifest(step=payload["step"], files=files, versions=payload["versions"], fingerprint=payload["fingerprint"])


def _load(data: bytes, *, where: str) -> dict[str, Any]:
    try:
        payload = parse_json(data)
    except ValueError as error:
        raise UserError("is not JSON", where=where, do=DAMAGED) from error
    if not isinstance(payload, dict) or "format" not in payload:
        raise UserError("is not a manifest", where=where, do="name the folder of a checkpoint")
    return payload


def check_file(path: Path, record: FileRecord, *, verify: bool) -> None:
    """Refuse a file that is missing or has another size, and with `verify` one that has another hash."""
    try:
        if not path.is_file():
            raise UserError("is missing", where=str(path), do=DAMAGED)
        size = path.stat().st_size
        if size != record.size:
            raise UserError(f"has {size} bytes, its manifest says {record.size}", where=str(path), do=DAMAGED)
        if verify and hash_file(path) != record.sha256:
            raise UserError("does not match the hash in its manifest", where=str(path), do=DAMAGED)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), do=DAMAGED) from error
