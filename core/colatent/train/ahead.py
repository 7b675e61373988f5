"""The samples of a step, drawn and prepared while a GPU still computes the step before.

Between two steps a GPU would wait for them. They are asked for once its work is lined up and before the first of its
numbers is read. Only where nothing of them hangs on the weights that are about to move. What a codec on that GPU has to
encode waits in its line; latents from a cache do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colatent.data.mixture import Drawn, Draws
from colatent.train.spread import Ready


class Ahead:
    """Draws and prepares steps, one before the others if asked to. Where that goes wrong it is said when the step is
    taken, as if it had been drawn only then."""

    def __init__(self, mixture: Draws, batch: int, prepare: Callable[[Sequence[Drawn], int], Ready]) -> None:
        self._mixture, self._batch, self._prepare = mixture, batch, prepare
        self._next: Ready | Exception | None = None
        self._before: dict[str, Any] | None = None

    def take(self, step: int) -> Ready:
        """The samples of a step, which is the one after that which was taken last."""
        ready, self._next, self._before = self._next, None, None
        if isinstance(ready, Exception):
            raise ready
        return self._make(step) if ready is None else ready

    def look(self, step: int) -> None:
        """Draw and prepare what `take` will be asked for next."""
        before = self._mixture.state()
        try:
            self._next = self._make(step)
        except Exception as error:  # the step under way is not to be lost by it
            self._next = error
        self._before = before

    def state(self) -> dict[str, Any]:
        """The position in the data after what was taken, JSON-able."""
        return self._mixture.state() if self._before is None else self._before

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `state` gave."""
        self._next = self._before = None
        self._mixture.load_state(state)

    def _make(self, step: int) -> Ready:
        return self._prepare(self._mixture.take(self._batch), step)
