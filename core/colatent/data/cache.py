"""The latent cache: what an encoding says of itself, and whether a run may train on it.

`plan.json` says what is to be encoded and is written first; the shards follow; `cache.json`, the same with the shards'
hashes, is written last and makes a folder a cache. Names of shards are made from numbers and never read from a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt, model_validator

from colatent.checkpoint.manifest import check_file
from colatent.checkpoint.storage import FileRecord, atomic_write_text
from colatent.config.checks import check_unchanged, validate
from colatent.config.settings import Settings
from colatent.errors import UserError
from colatent.jsons import parse_json

FORMAT = 1
"""Version of the layout of a cache; a reader refuses every other."""
INDEX, PLAN = "cache.json", "plan.json"
AGAIN = "encode again with colatent encode"
DAMAGED = "this cache is damaged: copy it again, or encode again into another folder"


class CachedStream(Settings):
    """A stream as it was encoded: what is known of its codec (see `CodecFacts`), and the field that it read."""

    field: str
    codec: str
    config: dict[str, Any]
    hash: str
    channels: PositiveInt
    mean: tuple[float, ...]
    std: tuple[float, ...]


class CachedSource(Settings):
    """A source as it was encoded.

    samples  of an epoch
    varied   whether its samples are drawn anew in every epoch
    draws    how many draws of each sample are there: those of the first epochs
    batch    samples of a step of the training, which were encoded together
    """

    dataset: str
    config: dict[str, Any]
    streams: tuple[str, ...]
    samples: PositiveInt
    varied: bool
    draws: PositiveInt
    batch: PositiveInt

    @property
    def total(self) -> int:
        """Draws of all samples."""
        return self.samples * self.draws


class CachePlan(Settings):
    """All that decides what a cache holds. `accumulate` and `precision` are those of stage prior."""

    format: int = FORMAT
    seed: NonNegativeInt
    length: PositiveInt
    accumulate: PositiveInt
    precision: str
    fingerprint: str
    streams: dict[str, CachedStream]
    sources: dict[str, CachedSource]

    def digest(self) -> str:
        """sha256 over all of it."""
        return _digest(self.model_dump(mode="json"))


class CachedShard(Settings):
    """One shard: which draws of a source it holds, counted in the order of training, its size in bytes and sha256."""

    source: str
    start: NonNegativeInt
    stop: PositiveInt
    size: PositiveInt
    sha256: str


class CacheIndex(Settings):
    """What `cache.json` holds, beside the hash of itself."""

    plan: CachePlan
    shards: tuple[CachedShard, ...]

    @model_validator(mode="after")
    def _of_its_sources(self) -> CacheIndex:
        if lost := {shard.source for shard in self.shards} - self.plan.sources.keys():
            raise ValueError(f"has a shard of source {min(lost)!r}, which the plan has not")
        return self


def shard_path(folder: Path, plan: CachePlan, source: str, start: int) -> Path:
    """Where the shard of a source lies whose first draw is number `start`."""
    return folder / f"shard-{list(plan.sources).index(source):03d}-{start:012d}.safetensors"


def write_plan(folder: Path, plan: CachePlan) -> None:
    """Say what is to be encoded."""
    _write(folder / PLAN, plan.model_dump(mode="json"))


def read_plan(folder: Path) -> CachePlan:
    """What was to be encoded when the encoding was begun."""
    return validate(CachePlan, _read(folder / PLAN), where=str(folder / PLAN))


def write_index(folder: Path, index: CacheIndex) -> None:
    """Make the folder a cache."""
    _write(folder / INDEX, index.model_dump(mode="json"))


def read_index(folder: Path) -> CacheIndex:
    """What a finished cache holds."""
    path = folder / INDEX
    if (folder / PLAN).is_file() and not path.is_file():
        do = "run the same colatent encode again: it goes on"
        raise UserError("was not encoded to the end", where=str(folder), do=do)
    return validate(CacheIndex, _read(path), where=str(path))


def check_shards(folder: Path, index: CacheIndex) -> None:
    """Refuse a cache of which a shard is missing or damaged. Reads every byte."""
    for shard in index.shards:
        path = shard_path(folder, index.plan, shard.source, shard.start)
        try:
            check_file(path, FileRecord(size=shard.size, sha256=shard.sha256), verify=True)
        except UserError as error:
            raise UserError(error.what, where=error.where, do=DAMAGED) from error


def check_fits(cached: CachePlan, run: CachePlan, *, folder: Path) -> None:
    """Refuse a cache that was made by other codecs or of other data than those of a run, given as the plan by which
    the run would be encoded."""
    where = f"data.cache ({folder})"
    for name, ours in run.streams.items():
        theirs = cached.streams.get(name)
        if theirs is None:
            raise UserError(f"has no latents of stream {name!r}", where=where, do=AGAIN)
        if theirs.hash != ours.hash:
            what = f"was encoded by another codec for stream {name!r} ({theirs.hash[:12]}, here {ours.hash[:12]})"
            raise UserError(what, where=where, do=f"{AGAIN}, or set streams.{name}.weights to that codec")
        if theirs.field != ours.field:
            what = f"is {ours.field!r}, the items in {folder} were read from {theirs.field!r}"
            raise UserError(what, where=f"streams.{name}.field", do=f"put it back, or {AGAIN}")
    if cached.length != run.length:
        what = f"is {run.length}, the latents in {folder} were cut to {cached.length}"
        raise UserError(what, where="data.length", do=f"put it back, or {AGAIN}")
    for name, source in run.sources.items():
        _check_source(name, cached, source, folder=folder)
        if cached.sources[name].varied and cached.seed != run.seed:
            what = f"is {run.seed}, and the samples of source {name!r} in {folder} were drawn with {cached.seed}"
            raise UserError(what, where="seed", do=f"put it back, or {AGAIN}")


def _check_source(name: str, cached: CachePlan, ours: CachedSource, *, folder: Path) -> None:
    theirs = cached.sources.get(name)
    if theirs is None or not set(ours.streams) <= set(theirs.streams):
        what = f"is not in {folder}" if theirs is None else f"has streams of which {folder} has no latents"
        raise UserError(what, where=f"data.sources.{name}", do=AGAIN)
    free = {key: getattr(theirs, key) for key in ("streams", "varied", "draws", "batch")}
    do = f"put it back, or {AGAIN} ({folder} was made with the other)"
    check_unchanged(theirs, ours.model_copy(update=free), where=f"data.sources.{name}", do=do)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _write(path: Path, values: Mapping[str, Any]) -> None:
    atomic_write_text(path, json.dumps({**values, "sha256": _digest(values)}, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """The values in a file that seals itself. The format is looked at first: another may seal itself in another way."""
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"is no latent cache: it has no {path.name}"
        raise UserError(what, where=str(path.parent), do="name a folder that colatent encode wrote") from error
    except (OSError, ValueError) as error:  # a text that is not UTF-8 is a ValueError too
        raise UserError("cannot be read as JSON", where=str(path), do=DAMAGED) from error
    if not isinstance(values, dict):
        raise UserError("is no index of a cache", where=str(path), do=DAMAGED)
    plan = values.get("plan", values)
    form = plan.get("format") if isinstance(plan, dict) else None
    if form != FORMAT:
        what = f"written by format {form}, this colatent reads {FORMAT}"
        raise UserError(what, where=str(path), do="use the colatent that wrote it, or encode again")
    if values.pop("sha256", None) != _digest(values):
        raise UserError("does not match its own hash", where=str(path), do=DAMAGED)
    return values
