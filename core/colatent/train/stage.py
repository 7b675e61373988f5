"""What the loop and a stage agree on: a stage says what the loss is, and which parts of it train when.

A part is a group of weights with an average, a learning rate and a group in checkpoints of its own. Stages `codec` and
`prior` have one each; stage `joint` has both, and its regimes are nothing but which of them moves at which step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from colatent.checkpoint.folder import Checkpoint
from colatent.data.mixture import Drawn


def always(step: int) -> bool:
    """At every step."""
    return True


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Weights that train together.

    module   the weights
    rate     their learning rate over the stage's
    settles  whether they end as their average, and are so in what a checkpoint offers for use
    moves    whether they train at a step, counted from 0
    until    the step from which on they stand still, as their average; None: they train to the end
    hidden   those of them that Muon is for: matrices between hidden layers
    """

    module: nn.Module
    rate: float = 1.0
    settles: bool = False
    moves: Callable[[int], bool] = always
    until: int | None = None
    hidden: Sequence[Tensor] = ()

    def trains(self, step: int) -> bool:
        """Whether the weights move at this step."""
        return self.moves(step) and (self.until is None or step < self.until)


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str

    @property
    def parts(self) -> Mapping[str, Part]:
        """What trains, by the name of its group in checkpoints."""
        ...

    def loss(self, drawn: Sequence[Drawn], step: int) -> tuple[Tensor, dict[str, float], int]:
        """The loss of a step, its parts by name, and the number of data units."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Scores on held-out samples, of the weights as they are."""
        ...

    def finish(self) -> None:
        """What is left to do after the last step."""
        ...

    def contents(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint holds beside the parts. Called while parts that settle hold their average."""
        ...

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Take up what a checkpoint knows beside weights."""
        ...
