"""Steps by a budget of latents: as many samples as fit, in the order of the mixture.

A step ends before the first sample that would exceed the budget, and that one begins the next. So where steps end
follows from the samples alone, and the position is the mixture's own after what was taken: what was read beyond is read
again after a resume. How long a sample is must be known of all of them, so every process reads all samples of a step
and keeps its share.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colatent.data.mixture import Drawn, Mixture
from colatent.errors import UserError

Measure = Callable[[Sequence[Drawn]], list[int]]
"""Gives the latents of each sample's sequence."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a step may hold.

    latents  of all samples of a step
    shares   passes of all processes that need a sample in every step; one sample has at most a share of the latents, so
             that there are always as many
    where    key path of the setting, for errors
    """

    latents: int
    shares: int
    where: str

    @property
    def largest(self) -> int:
        """Latents of one sample, at most."""
        return self.latents // self.shares


class Budgeted:
    """Endless draws from a mixture that is of one process, in steps of a budget."""

    def __init__(self, mixture: Mixture, budget: Budget, *, measure: Measure, rank: int = 0, world: int = 1) -> None:
        assert 0 <= rank < world <= budget.shares
        self._mixture, self._budget, self._measure = mixture, budget, measure
        self._rank, self._world = rank, world
        self._read: deque[tuple[int, Drawn]] = deque()  # with their lengths; not taken yet

    def take(self, count: int) -> list[Drawn]:
        """Of the next step of all ranks, the samples of this one; `count` are read at a time. They are dealt out by
        length, so that no rank has more latents than another by more than the longest sample."""
        taken: list[tuple[int, Drawn]] = []
        left = self._budget.latents
        while (following := self._next(count))[0] <= left:
            left -= following[0]
            taken.append(self._read.popleft())
        ordered = sorted(taken, key=lambda one: -one[0])
        return [one for _, one in ordered[self._rank :: self._world]]

    def state(self) -> dict[str, Any]:
        """See `Mixture.state`: the same position, good for steps of a fixed number of samples too."""
        ahead = Counter(one.source for _, one in self._read)
        return {"drawn": {name: count - ahead[name] for name, count in self._mixture.state()["drawn"].items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Mixture.load_state`."""
        self._read.clear()
        self._mixture.load_state(state)

    def news(self) -> dict[str, list[Any]]:
        """See `Mixture.news`."""
        return self._mixture.news()

    def learn(self, news: Mapping[str, list[Any]]) -> None:
        """See `Mixture.learn`."""
        self._mixture.learn(news)

    def close(self) -> None:
        """See `Mixture.close`."""
        self._mixture.close()

    def _next(self, count: int) -> tuple[int, Drawn]:
        """The next sample that is not taken yet, with its length."""
        if not self._read:
            drawn = self._mixture.take(count)
            self._read.extend(zip(self._measure(drawn), drawn, strict=True))
        length, one = self._read[0]
        if length > self._budget.largest:
            what = f"is {self._budget.latents}, and sample {one.key} alone has {length} latents"
            if self._budget.shares > 1:
                what += f", more than one of {self._budget.shares} shares ({self._budget.largest})"
            raise UserError(what, where=self._budget.where, do="raise it, or shorten items (data.length cuts texts)")
        return length, one
