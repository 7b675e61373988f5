"""Several datasets as one endless, resumable stream of samples.

Which source comes next, in which order a source is read, and how a window is cut are functions of the seed and of the
number of samples drawn. So the whole position is one count per source: small, plain JSON, exact on resume. There is one
order for all ranks, and the position is in it: each rank reads its share of what comes next and knows of the rest only
that it was drawn, so that a position is the same on every rank and good for any number of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from colatent.data.dataset import Dataset, Sample, ScoutedDataset
from colatent.errors import UserError
from colatent.latents.draws import generator


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which sample of which source it is, and how often the source had been read through before."""

    source: str
    index: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One sample with the names that its randomness hangs on.

    source  name of its source
    key     (source, index): the same sample has the same key in every epoch
    epoch   how often the source had been read through before
    """

    source: str
    key: str
    epoch: int
    sample: Sample


class Draws(Protocol):
    """Endless draws, step by step, from a position that can be kept."""

    def take(self, count: int) -> list[Drawn]:
        """This process's share of the next step."""
        ...

    def state(self) -> dict[str, Any]:
        """Position, JSON-able."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `state` gave."""
        ...

    def news(self) -> dict[str, list[Any]]:
        """What is known to be damaged, by source, JSON-able."""
        ...

    def learn(self, news: Mapping[str, list[Any]]) -> None:
        """Count what another process found damaged, as if it had been found here. Raises `UserError` at too much."""
        ...

    def close(self) -> None:
        """Let go of what reads ahead."""
        ...


class Mixture:
    """Endless draws from weighted sources."""

    def __init__(
        self,
        sources: Mapping[str, tuple[Dataset, float]],
        *,
        seed: int,
        whole: bool = False,
        sizes: Mapping[str, int] = MappingProxyType({}),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`whole`: all samples of a call of `take` are of one source, `sizes[source]` of them where that is given.
        Of these samples, rank `rank` of `world` reads every `world`-th."""
        assert 0 <= rank < world
        self._rank, self._world = rank, world
        self.datasets = {name: dataset for name, (dataset, _) in sources.items()}
        self._whole, self._sizes = whole, dict(sizes)
        weights = np.array([weight for _, weight in sources.values()])
        self._bounds = np.cumsum(weights / weights.sum())
        self._seed = seed
        self._drawn = dict.fromkeys(sources, 0)
        self._order: dict[str, tuple[int, np.ndarray]] = {}

    def take(self, count: int) -> list[Drawn]:
        """Of the next `count` samples of all ranks, those of this one."""
        return [self.read(place) for place in self.plan(count)]

    def plan(self, count: int) -> list[Place]:
        """The places of the samples that `take` would give. They count as drawn."""
        if self._whole:
            name = self._choose()
            places = [self._next(name) for _ in range(self._sizes.get(name, count))]
        else:
            places = [self._next(self._choose()) for _ in range(count)]
        return places[self._rank :: self._world]

    def read(self, place: Place) -> Drawn:
        """The sample at a place."""
        rng = generator(self._seed, "sample", place.source, place.epoch, place.index)
        return sample_of(self.datasets[place.source], place.source, place.index, rng, epoch=place.epoch)

    def news(self) -> dict[str, list[Any]]:
        """See `Draws.news`."""
        return {name: one.news() for name, one in self.datasets.items() if isinstance(one, ScoutedDataset)}

    def learn(self, news: Mapping[str, list[Any]]) -> None:
        """See `Draws.learn`."""
        for name, found in news.items():
            dataset = self.datasets[name]
            assert isinstance(dataset, ScoutedDataset)
            dataset.learn(found)

    def close(self) -> None:
        """Let go of what reads ahead; here nothing does."""

    def state(self) -> dict[str, Any]:
        """Position, JSON-able."""
        return {"drawn": dict(self._drawn)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `state` gave."""
        if set(state["drawn"]) != set(self.datasets):
            what = f"they are {', '.join(self.datasets)}, the run was begun with {', '.join(state['drawn'])}"
            raise UserError(what, where="data.sources", do="resume with the sources that it was begun with")
        self._drawn = {name: int(state["drawn"][name]) for name in self.datasets}

    def _choose(self) -> str:
        """The source that comes next: a function of the seed and of how many samples were drawn, so that every rank
        that drew as many chooses alike."""
        place = generator(self._seed, "mixture", sum(self._drawn.values())).uniform()
        return list(self.datasets)[min(int(np.searchsorted(self._bounds, place, side="right")), len(self._bounds) - 1)]

    def _next(self, name: str) -> Place:
        count = self._drawn[name]
        self._drawn[name] = count + 1
        epoch, place_in_epoch = divmod(count, len(self.datasets[name]))
        return Place(source=name, index=int(self._permutation(name, epoch)[place_in_epoch]), epoch=epoch)

    def _permutation(self, name: str, epoch: int) -> np.ndarray:
        known = self._order.get(name)
        if known is None or known[0] != epoch:
            order = generator(self._seed, "order", name, epoch).permutation(len(self.datasets[name]))
            known = self._order[name] = (epoch, order)
        return known[1]


def first_samples(dataset: Dataset, name: str, *, count: int, seed: int) -> list[Drawn]:
    """The first `count` samples of a dataset (fewer where it has fewer), the same at every call."""
    return [
        sample_of(dataset, name, index, generator(seed, "first", name, index))
        for index in range(min(count, len(dataset)))
    ]


def sample_of(dataset: Dataset, name: str, index: int, rng: np.random.Generator, *, epoch: int = 0) -> Drawn:
    """Sample `index` of the source `name`, with its key."""
    return Drawn(source=name, key=f"{name}/{index}", epoch=epoch, sample=dataset.sample(index, rng))
