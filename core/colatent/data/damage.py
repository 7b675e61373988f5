"""Damaged samples: counted, named, and too many of them refused.

A sample is counted once, by its place in the data, however often and in whatever order it is met. So the count of a run
depends on which samples it drew and on nothing else: not on workers, and over a whole epoch not on the seed. It is not
part of a checkpoint. A resumed run counts anew what it meets again, so it may stop later than one that was never
stopped; what is found when the data are opened (a shard cut short) is counted at once, and alike every time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from colatent.errors import UserError

Found = tuple[list[tuple[int, int]], str]
"""Places, and what is wrong with the samples there."""
LAST = 3
"""Errors that are told when a run stops."""


class Damage:
    """What is known to be damaged of one dataset.

    share  of its samples that may be
    total  samples that are there
    where  how errors call the dataset
    silent whether it neither tells nor stops, because another one counts
    """

    def __init__(self, *, share: float, total: int, where: str) -> None:
        self.share, self.total, self.where = share, total, where
        self._found: dict[tuple[int, int], str] = {}
        self._lost: list[str] = []
        self._gone = 0
        self.silent = False

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place in self._found

    def note(self, places: Iterable[tuple[int, int]], reason: str) -> None:
        """Count the samples at these places (their shard, their row there), those that are known not again."""
        fresh = [place for place in places if place not in self._found]
        if fresh:
            self._found |= dict.fromkeys(fresh, reason)
            self._tell(reason)

    def news(self) -> list[Found]:
        """All that was noted."""
        return [([place], reason) for place, reason in self._found.items()]

    def lose(self, count: int, reason: str) -> None:
        """Count samples of which nothing is known but that they are not there any more."""
        self._lost.append(reason)
        self._gone += count
        self._tell(reason)

    def _tell(self, reason: str) -> None:
        if self.silent:
            return
        count, of = self._gone + len(self._found), self.total + self._gone
        if count > self.share * of:
            last = "; ".join(list(dict.fromkeys([*self._lost, *self._found.values()]))[-LAST:])
            what = f"{count} of {of} samples are damaged, more than damaged={self.share:g} allows: {last}"
            raise UserError(what, where=self.where, do="mend the data, or allow more")
        warnings.warn(f"{self.where}: damaged, and passed over: {reason}", stacklevel=2)
