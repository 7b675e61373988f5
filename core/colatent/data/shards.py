"""The dataset `shards`: samples in tar archives, each read when it is drawn.

An index says where every file lies, so a sample is found by its number and not by reading what stands before it: order,
resume, ranks and workers are then the mixture's business, as for every dataset. A sample that is damaged is replaced by
the next one in the archives' order, which is a function of the data alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from colatent.config.settings import Settings
from colatent.data.damage import Damage, Found
from colatent.data.dataset import Opener, Sample, Split
from colatent.data.index import Shard, checksum, shown, suffixes_of
from colatent.data.locate import locate
from colatent.data.scan import is_pickle
from colatent.errors import UserError


class ShardsConfig(Settings):
    """Archives that `colatent data pack` wrote, or any other WebDataset tar files."""

    path: str = Field(min_length=1)
    """A folder with `shards.json`, or of .tar files; one .tar file; or the https address of a shards.json or .tar file.
    `{000..127}` in it stands for so many names."""
    fields: dict[str, tuple[str, ...]] = Field(default={})
    """Which files hold a field, by the suffixes of their names: `{left: [left.png]}`. Where a field is not named: the
    files of that suffix, those of `FIELD.*`, or those that the codec of its stream reads."""
    heldout: float = Field(default=0.05, gt=0.0, le=0.5)
    """Share of the samples that is held out, by a hash of their keys; at least one."""
    damaged: float = Field(default=0.001, ge=0.0, lt=1.0)
    """Share of the samples that may be damaged before a run stops."""
    cache: str | None = None
    """Folder for what comes by https. Default: colatent/shards in the user's cache."""

    @field_validator("fields", mode="before")
    @classmethod
    def _one_is_a_list(cls, fields: object) -> object:
        if not isinstance(fields, Mapping):
            return fields
        return {field: [some] if isinstance(some, str) else some for field, some in fields.items()}

    @field_validator("fields")
    @classmethod
    def _no_pickles(cls, fields: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for field, suffixes in fields.items():
            if any(map(is_pickle, suffixes)):
                raise ValueError(f"{field} names pickles, and reading one can run code")
        return fields


class _DamagedError(Exception):
    """A sample cannot be had; says which and why."""


class Shards:
    """A sample is a group of files; its fields are opened by the codecs that read them."""

    def __init__(self, config: ShardsConfig, *, split: Split) -> None:
        found = locate(config.path, cache=config.cache)
        self._config, self._files, self._shards = config, found, [one.shard for one in found]
        total = sum(len(shard.keys) for shard in self._shards)
        if total < 2:
            do = "give two at least: one to train on, one to hold out"
            raise UserError(f"holds {total} samples", where=config.path, do=do)
        self._damage = Damage(share=config.damaged, total=total, where=config.path)
        held = _held_out(self._shards, config.heldout)
        every = ((s, row) for s, shard in enumerate(self._shards) for row in range(len(shard.keys)))
        self._places = [place for place, out in zip(every, held, strict=True) if out == (split == "heldout")]
        self._suffixes: dict[str, tuple[str, ...]] = {}
        self._openers: dict[str, Opener] = {}
        self._note_lost()

    def __len__(self) -> int:
        return len(self._places)

    def name_fields(self, suffixes: Mapping[str, Sequence[str]]) -> None:
        """See `StoredDataset.name_fields`."""
        present = suffixes_of(self._shards)
        for field, own in suffixes.items():
            named = self._config.fields.get(field)
            under = tuple(suffix for suffix in present if suffix.startswith(f"{field.lower()}."))
            ways = [named] if named is not None else [(field.lower(),), under, tuple(own)]
            found = next((some for some in ways if set(some) & set(present)), ())
            if named is not None and not found:
                what = f"no file of the shards ends in {' or '.join(named)}; they end in {', '.join(present)}"
                raise UserError(what, where=f"{self._config.path}: fields.{field}", do="name one of those")
            if found:
                self._suffixes[field] = found

    def fields(self) -> Sequence[str]:
        """Those that were named and found."""
        return list(self._suffixes)

    def open_with(self, field: str, opener: Opener) -> None:
        """See `StoredDataset.open_with`."""
        if self._openers.get(field, opener) != opener:
            what = f"field {field!r} is read by two streams whose codecs are set up differently"
            raise UserError(what, where=self._config.path, do="set both up alike, or pack the files under two suffixes")
        self._openers[field] = opener

    def scout(self) -> None:
        """See `ScoutedDataset.scout`."""
        self._damage.silent = True

    def news(self) -> list[Found]:
        """See `ScoutedDataset.news`."""
        return self._damage.news()

    def learn(self, news: Sequence[Found]) -> None:
        """See `ScoutedDataset.learn`."""
        for places, reason in news:
            self._damage.note([(shard, row) for shard, row in places], reason)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Sample `index`, or where it is damaged the next one that is not."""
        for step in range(len(self._places)):
            place = self._places[(index + step) % len(self._places)]
            if place in self._damage:
                continue
            try:
                return self._read(place)
            except _DamagedError as error:
                self._damage.note([place], str(error))
        raise UserError("every sample is damaged", where=self._config.path, do="mend the data")

    def _read(self, place: tuple[int, int]) -> Sample:
        return {field: self._open(place, field, opener) for field, opener in self._openers.items()}

    def _open(self, place: tuple[int, int], field: str, opener: Opener) -> object:
        """The item of one field."""
        file, row = self._files[place[0]], place[1]
        key, files = file.shard.keys[row], file.shard.members[row]
        title = f"{file.shard.name}, sample {shown(key)}"
        suffix = next((suffix for suffix in self._suffixes[field] if suffix in files), None)
        if suffix is None:
            raise _DamagedError(f"{title}: has no {field} ({', '.join(self._suffixes[field])})")
        start, size, known = files[suffix]
        data = _bytes(file.path, start, size)
        if len(data) < size:
            raise _DamagedError(f"{title}: {suffix} is cut short")
        if known and checksum(data) != known:
            raise _DamagedError(f"{title}: {suffix} does not match its checksum")
        try:
            return opener(data, name=f"{key}.{suffix}")
        except UserError as error:
            raise _DamagedError(f"{title}: {suffix} {error.what}") from error

    def _note_lost(self) -> None:
        """Count what is known to be damaged before anything is read: shards that are missing or not whole."""
        for number, file in enumerate(self._files):
            shard, size = file.shard, file.path.stat().st_size if file.path.is_file() else 0
            if shard.lost:
                self._damage.lose(shard.lost, f"{shard.name}: {shard.problem}, about {shard.lost} samples are lost")
            cut = [row for row, files in enumerate(shard.members) if any(sum(one[:2]) > size for one in files.values())]
            if cut:
                keys = f"sample{'s' if len(cut) > 1 else ''} {shown(shard.keys[cut[0]])}"
                keys += f" to {shown(shard.keys[cut[-1]])}" if len(cut) > 1 else ""
                reason = f"{shard.name}, {keys}: the shard has {size} bytes of {shard.size}"
                self._damage.note([(number, row) for row in cut], reason)


def _bytes(path: Path, start: int, size: int) -> bytes:
    """The bytes of a member, or as many as there are."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise _DamagedError(f"{path}: cannot be read ({error.strerror or error})") from error


def _held_out(shards: Sequence[Shard], share: float) -> list[bool]:
    """Which samples are held out: those whose keys have a small hash, so that samples that come or go move none of the
    others across the line; at least one, and never all."""
    digests = [hashlib.sha256(key.encode()).digest() for shard in shards for key in shard.keys]
    held = [int.from_bytes(digest[:8]) < share * 2**64 for digest in digests]
    if all(held) or not any(held):
        held[digests.index(max(digests) if all(held) else min(digests))] = not all(held)
    return held
