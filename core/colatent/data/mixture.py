"""Several datasets as one endless, resumable stream of samples.

Which source comes next, in which order a source is read, and how a window is cut are functions of the seed and of the
number of samples drawn. So the whole position is one count per source: small, plain JSON, exact on resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from colatent.data.dataset import Dataset, Sample
from colatent.errors import UserError
from colatent.latents.draws import generator


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


class Mixture:
    """Endless draws from weighted sources."""

    def __init__(
        self,
        sources: Mapping[str, tuple[Dataset, float]],
        *,
        seed: int,
        whole: bool = False,
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """`whole`: all samples of a call of `take` are of one source, `sizes[source]` of them where that is given."""
        self._datasets = {name: dataset for name, (dataset, _) in sources.items()}
        self._whole, self._sizes = whole, dict(sizes)
        weights = np.array([weight for _, weight in sources.values()])
        self._bounds = np.cumsum(weights / weights.sum())
        self._seed = seed
        self._drawn = dict.fromkeys(sources, 0)
        self._order: dict[str, tuple[int, np.ndarray]] = {}

    def take(self, count: int) -> list[Drawn]:
        """The next `count` samples."""
        if not self._whole:
            return [self._next(self._choose()) for _ in range(count)]
        name = self._choose()
        return [self._next(name) for _ in range(self._sizes.get(name, count))]

    def state(self) -> dict[str, Any]:
        """Position, JSON-able."""
        return {"drawn": dict(self._drawn)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `state` gave."""
        if set(state["drawn"]) != set(self._datasets):
            what = f"they are {', '.join(self._datasets)}, the run was begun with {', '.join(state['drawn'])}"
            raise UserError(what, where="data.sources", do="resume with the sources that it was begun with")
        self._drawn = {name: int(state["drawn"][name]) for name in self._datasets}

    def _choose(self) -> str:
        """The source that comes next: a function of the seed and of how many samples were drawn, so that every rank
        that drew as many chooses alike."""
        place = generator(self._seed, "mixture", sum(self._drawn.values())).uniform()
        return list(self._datasets)[min(int(np.searchsorted(self._bounds, place, side="right")), len(self._bounds) - 1)]

    def _next(self, name: str) -> Drawn:
        count = self._drawn[name]
        self._drawn[name] = count + 1
        epoch, place_in_epoch = divmod(count, len(self._datasets[name]))
        index = int(self._permutation(name, epoch)[place_in_epoch])
        rng = generator(self._seed, "sample", name, epoch, index)
        return sample_of(self._datasets[name], name, index, rng, epoch=epoch)

    def _permutation(self, name: str, epoch: int) -> np.ndarray:
        known = self._order.get(name)
        if known is None or known[0] != epoch:
            order = generator(self._seed, "order", name, epoch).permutation(len(self._datasets[name]))
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
