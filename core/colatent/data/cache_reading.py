"""A latent cache, open to train on: the records of samples by source, epoch and index.

Epoch e takes draw e mod N, of the N draws of each sample that the cache has. Where an item itself is asked for (a
prompt's ragged end is encoded anew), it is the one that was encoded, drawn once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from colatent.data.cache import DAMAGED, CacheIndex, check_shards, read_index, shard_path
from colatent.data.cache_shards import Shard
from colatent.data.dataset import Dataset, Sample
from colatent.data.mixture import Drawn, Mixture, Place
from colatent.errors import UserError
from colatent.plugins.latents import Encoded

NOWHERE = -1


class LatentCache:
    """The records of all samples of some sources, and the datasets that they were encoded from."""

    def __init__(self, path: Path, index: CacheIndex, datasets: Mapping[str, Dataset]) -> None:
        self.path, self.plan, self._datasets = path, index.plan, datasets
        self._shards: list[Shard] = []
        sizes = {name: (source.draws, source.samples) for name, source in self.plan.sources.items()}
        self._shard = {name: np.full(size, NOWHERE, dtype=np.int32) for name, size in sizes.items()}
        self._row = {name: np.zeros(size, dtype=np.int32) for name, size in sizes.items()}
        for shard in index.shards:
            self._add(shard.source, shard_path(path, self.plan, shard.source, shard.start))
        for name, shards in self._shard.items():
            if (missing := int((shards == NOWHERE).sum())) > 0:
                raise UserError(f"lacks {missing} samples of source {name!r}", where=str(path), do=DAMAGED)

    @classmethod
    def open(cls, path: Path, datasets: Mapping[str, Dataset]) -> Self:
        """The cache in a folder, every byte of it checked; `datasets` are those that train, by source."""
        index = read_index(path)
        check_shards(path, index)
        return cls(path, index, datasets)

    def records(self, stream: str, drawn: Sequence[Drawn]) -> list[Encoded]:
        """The posteriors of the samples' items of one stream."""
        return [self._record(stream, one) for one in drawn]

    def drawn_again(self, drawn: Sequence[Drawn]) -> list[Drawn]:
        """The same with the samples as they were when they were encoded."""
        return [replace(one, sample=self._sample(one)) for one in drawn]

    def _record(self, stream: str, one: Drawn) -> Encoded:
        place = self._draw(one), index_of(one)
        shard = self._shards[self._shard[one.source][place]]
        return shard.record(stream, int(self._row[one.source][place]))

    def _sample(self, one: Drawn) -> Sample:
        mixture = Mixture({one.source: (self._datasets[one.source], 1.0)}, seed=self.plan.seed)
        return mixture.read(Place(source=one.source, index=index_of(one), epoch=self._draw(one))).sample

    def _draw(self, one: Drawn) -> int:
        return one.epoch % self.plan.sources[one.source].draws

    def _add(self, source: str, path: Path) -> None:
        shard = Shard(path, self.plan.sources[source].streams)
        draw_I, index_I = shard.draw.numpy(), shard.index.numpy()
        draws, samples = self._shard[source].shape
        if ((draw_I >= draws) | (index_I >= samples)).any():
            raise UserError(f"holds samples that source {source!r} has not", where=str(path), do=DAMAGED)
        self._shard[source][draw_I, index_I] = len(self._shards)
        self._row[source][draw_I, index_I] = np.arange(len(index_I))
        self._shards.append(shard)


class Unread:
    """A dataset in name only: what its samples hold is in a cache, so that none needs to be read."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """See `Dataset.sample`."""
        return {}


class Watched:
    """A dataset of which one sees whether its samples depend on the generator that is handed in."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self.varied = dataset, False

    def __len__(self) -> int:
        return len(self._dataset)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """See `Dataset.sample`. A sample that left the generator where it was is the same with any other."""
        before = _position(rng)
        sample = self._dataset.sample(index, rng)
        self.varied = self.varied or _position(rng) != before
        return sample


def _position(rng: np.random.Generator) -> str:
    return repr(rng.bit_generator.state)


def index_of(one: Drawn) -> int:
    """The index of a sample in its dataset."""
    return int(one.key.rpartition("/")[2])
