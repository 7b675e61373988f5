"""What the loop and a stage agree on: a stage says what the loss is, and which parts of it train when.

A part is a group of weights with an average, a learning rate and a group in checkpoints of its own. Stages `codec` and
`prior` have one each; stage `joint` has both, and its regimes are nothing but which of them moves at which step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from colatent.checkpoint.folder import Checkpoint
from colatent.data.mixture import Drawn
from colatent.evaluate.sampling import Sampled

Loss = tuple[Tensor, dict[str, Tensor], int]
"""What `Stage.loss` gives: the loss, its parts by name without gradient, and the data units that it is of."""


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
    layers   modules below `module` that are run one after the other, each all at once
    """

    module: nn.Module
    rate: float = 1.0
    settles: bool = False
    moves: Callable[[int], bool] = always
    until: int | None = None
    hidden: Sequence[Tensor] = ()
    layers: Sequence[nn.Module] = ()

    def trains(self, step: int) -> bool:
        """Whether the weights move at this step."""
        return self.moves(step) and (self.until is None or step < self.until)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Samples of one pass, made ready before the weights under training are asked.

    batch   what the loss is computed from
    counts  over how much each of its means goes, by the name of the mean: rows of a stream, data units of a codec's
            items. A step may have several passes, on several devices; each is handed the sums over all of them, so
            that how a batch is cut up changes nothing
    """

    batch: Any
    counts: Mapping[str, Tensor]


def add_up(counts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sums by name; a name may be missing in some."""
    found: dict[str, Tensor] = {}
    for some in counts:
        found |= {name: found[name] + count if name in found else count for name, count in some.items()}
    return found


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str

    @property
    def parts(self) -> Mapping[str, Part]:
        """What trains, by the name of its group in checkpoints."""
        ...

    def prepare(self, drawn: Sequence[Drawn], step: int, *, alone: bool) -> Prepared:
        """What a pass over these samples needs. `alone`: it is all of the step, and only its own counts matter."""
        ...

    def encodes(self, step: int) -> bool:
        """Whether what `prepare` gives at this step has a gradient to encoders."""
        ...

    def early(self) -> bool:
        """Whether `prepare` asks no weights that train: then a step may be prepared before the last has moved them."""
        ...

    def loss(self, prepared: Prepared, counts: Mapping[str, Tensor], step: int) -> Loss:
        """This pass's share in the loss of a step, in its parts by name, and in its number of data units. `counts` are
        those of the whole step."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Scores on held-out samples, of the weights as they are."""
        ...

    def samples(self) -> Sequence[Sampled]:
        """A few items that the weights generate, as they are."""
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
