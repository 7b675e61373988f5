"""A latent cache under way: which draws are in whole shards, and the one shard that is being filled.

Shards are all there is to know of what was done: whoever goes on looks at what they hold. They begin and end where
steps of the training do, so that what was encoded together is never cut.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from colatent.checkpoint.manifest import FileRecord
from colatent.checkpoint.storage import TEMPORARY, hash_file, make_folder
from colatent.config.checks import check_unchanged
from colatent.data.cache import (
    INDEX,
    PLAN,
    CachedShard,
    CacheIndex,
    CachePlan,
    read_index,
    read_plan,
    shard_path,
    write_index,
    write_plan,
)
from colatent.data.cache_shards import CachedSample, ShardFacts, read_facts, write_shard
from colatent.errors import UserError

SHARD = "shard-"
"""How the names of shards begin."""


def begin(folder: Path, plan: CachePlan) -> CacheIndex | None:
    """Make the folder one in which `plan` is under way, and give the index where it is finished already. Refuses a
    folder that holds anything else."""
    make_folder(folder)
    # Looked at first: another process may begin the same encoding at this moment.
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY))
    if (folder / INDEX).is_file():
        index = read_index(folder)
        _check_plan(index.plan, plan, folder)
        return index
    if (folder / PLAN).is_file():
        _check_plan(read_plan(folder), plan, folder)
        return None
    if others:
        what = f"is not empty and no latent cache (it has {others[0]})"
        raise UserError(what, where=str(folder), do="choose another --out")
    write_plan(folder, plan)
    return None


def finish(folder: Path, plan: CachePlan) -> CacheIndex | None:
    """Make the folder a cache if every draw is there; else None, since other processes are still at it."""
    held = whole_shards(folder, plan)
    if any(missing(source.total, held[name]) for name, source in plan.sources.items()):
        return None
    shards = []
    for facts in (one for some in held.values() for one in some):
        path = shard_path(folder, plan, facts.source, facts.start)
        file = FileRecord(size=path.stat().st_size, sha256=hash_file(path))
        shards.append(CachedShard(source=facts.source, start=facts.start, stop=facts.stop, **vars(file)))
    index = CacheIndex(plan=plan, shards=tuple(shards))
    write_index(folder, index)
    for left in folder.glob(f"{TEMPORARY}{SHARD}*"):  # of processes that were killed: all others have ended
        left.unlink(missing_ok=True)
    return index


def whole_shards(folder: Path, plan: CachePlan) -> dict[str, list[ShardFacts]]:
    """The shards that are there, by source, in order."""
    held: dict[str, list[ShardFacts]] = {name: [] for name in plan.sources}
    digest = plan.digest()
    for path in sorted(folder.glob(f"{SHARD}*")):
        facts = read_facts(path)
        if facts.plan != digest or path != shard_path(folder, plan, facts.source, facts.start):
            raise UserError("is a shard of another cache", where=str(path), do="remove it, and encode again")
        held[facts.source].append(facts)
    return held


def missing(total: int, held: Sequence[ShardFacts]) -> int:
    """How many of so many draws are in none of these shards, which are in order."""
    reached, found = 0, 0
    for facts in held:
        found += max(0, facts.stop - max(reached, facts.start))
        reached = max(reached, facts.stop)
    return total - found


class CacheWriter:
    """Fills shards one after the other."""

    def __init__(self, folder: Path, plan: CachePlan, *, shard_bytes: int) -> None:
        self._folder, self._plan, self._bound = folder, plan, shard_bytes
        self._digest, self._held = plan.digest(), whole_shards(folder, plan)
        self._source, self._start, self._bytes = "", 0, 0
        self._samples: list[CachedSample] = []

    def holds(self, source: str, start: int, stop: int) -> bool:
        """Whether a whole shard has these draws."""
        held = self._held[source]
        at = bisect_right(held, start, key=lambda facts: facts.start) - 1
        return at >= 0 and stop <= held[at].stop

    def add(self, source: str, start: int, samples: Sequence[CachedSample]) -> None:
        """Take the samples of one step, the first of which is draw number `start` of the source."""
        if (source, start) != (self._source, self._start + len(self._samples)):
            self.flush()
            self._source, self._start = source, start
        self._samples += samples
        self._bytes += sum(sample.size for sample in samples)
        if self._bytes >= self._bound:
            self.flush()

    def flush(self) -> None:
        """Write what was taken since the last shard; it is on the disk when this returns."""
        if not self._samples:
            return
        stop = self._start + len(self._samples)
        facts = ShardFacts(plan=self._digest, source=self._source, start=self._start, stop=stop)
        write_shard(shard_path(self._folder, self._plan, self._source, self._start), self._samples, facts)
        self._start, self._samples, self._bytes = stop, [], 0


def _check_plan(before: CachePlan, plan: CachePlan, folder: Path) -> None:
    do = f"choose another --out ({folder} holds an encoding with other settings)"
    check_unchanged(before, plan, where="encoding", do=do)
