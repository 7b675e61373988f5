"""Gradients of a step, over passes and over processes.

Losses are shares: sums over some samples, divided by the counts of the whole step. So the gradient of a step is a sum
over its passes and over the processes that train together, whoever had which samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from colatent.config.schema import RunConfig
from colatent.config.stages import StageConfig
from colatent.data.mixture import Drawn
from colatent.errors import UserError
from colatent.train.budgets import shares
from colatent.train.engine import Engine
from colatent.train.stage import Loss, Prepared, Stage, add_up
from colatent.train.world import World


@dataclass(frozen=True, kw_only=True)
class Passed:
    """The forward and backward passes of one step.

    loss   of the whole step
    parts  of it, by name
    units  data units of the whole step
    sound  whether this process's share in the loss is a finite number
    """

    loss: float
    parts: dict[str, float]
    units: float
    sound: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Ready:
    """The samples of one step.

    drawn     this process's share of it
    passes    the same, pass by pass
    prepared  what the stage made of each
    """

    drawn: Sequence[Drawn]
    passes: Sequence[Sequence[Drawn]]
    prepared: Sequence[Prepared]


class Spread:
    """A stage's steps, computed in passes by one process or several."""

    def __init__(
        self, stage: Stage, config: StageConfig, *, engine: Engine, world: World, device: torch.device
    ) -> None:
        self._stage, self._config, self._engine, self._world, self._device = stage, config, engine, world, device

    def prepare(self, drawn: Sequence[Drawn], step: int) -> Ready:
        """Make the samples of a step ready, which are this process's share of it."""
        passes = self._passes(drawn)
        # Counts are needed before the first loss. What is encoded for them keeps no graph where there are more passes
        # than one: their graphs would all be held until each has had its turn.
        with torch.set_grad_enabled(not self._again(passes, step)):
            prepared = [self._prepare(one, step, among=len(passes)) for one in passes]
        return Ready(drawn=drawn, passes=passes, prepared=prepared)

    def gradients(self, ready: Ready, step: int, *, meanwhile: Callable[[], None]) -> Passed:
        """Give the weights the gradient of a step's loss, in `accumulate` passes over its samples. `meanwhile` is done
        while a GPU may still be at it."""
        some, again = ready.passes, self._again(ready.passes, step)
        counts, own, found = self._count(ready.prepared), Counter[str](), list[Loss]()
        for number, one in enumerate(some):
            now = self._prepare(one, step, among=len(some)) if again else ready.prepared[number]
            work = partial(self._loss, now, counts, step)
            loss, parts, units = self._engine.gradients(work, last=number == len(some) - 1)
            found.append((loss.detach(), parts, units))
        meanwhile()
        # Read only now: a number that is waited for keeps a GPU waiting for what comes next.
        for loss, parts, units in found:
            own.update({"loss": float(loss), "units": units} | {key: float(one) for key, one in parts.items()})
        whole = self._world.sum(own)
        sound = math.isfinite(own["loss"])
        return Passed(loss=whole.pop("loss"), units=whole.pop("units"), parts=whole, sound=sound)

    def _again(self, passes: Sequence[Any], step: int) -> bool:
        """Whether each pass is prepared again when its turn comes, to have a graph."""
        return len(passes) > 1 and self._stage.encodes(step)

    def _passes(self, drawn: Sequence[Drawn]) -> list[Sequence[Drawn]]:
        """The samples of each pass. Those of a budget come by length, and are dealt out so that passes are alike."""
        if self._config.budget is None:
            return in_passes(drawn, self._config.accumulate)
        count = min(self._config.accumulate, len(drawn))
        return [drawn[number::count] for number in range(count)]

    def _prepare(self, drawn: Sequence[Drawn], step: int, *, among: int) -> Prepared:
        with self._precision():
            return self._stage.prepare(drawn, step, alone=among == self._world.size == 1)

    def _count(self, prepared: Iterable[Prepared]) -> dict[str, Tensor]:
        """Counts of the whole step."""
        counts = add_up(one.counts for one in prepared)
        if self._world.size == 1:
            return counts
        found = self._world.sum({name: float(count) for name, count in counts.items()})
        return {name: torch.tensor(count) for name, count in found.items()}

    def _loss(self, prepared: Prepared, counts: Mapping[str, Tensor], step: int) -> Loss:
        with self._precision():
            return self._stage.loss(prepared, counts, step)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._config.precision == "bf16":
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()


def in_passes(drawn: Sequence[Drawn], count: int) -> list[Sequence[Drawn]]:
    """Samples of a step, cut into so many passes, or one for each sample where there are fewer of them."""
    count = min(count, len(drawn))
    return [drawn[start:end] for start, end in pairwise(len(drawn) * number // count for number in range(count + 1))]


def check_shares(config: RunConfig, world: World) -> None:
    """Refuse steps of too few samples for so many processes: each needs one in every step, and one in every pass where
    all must come to each pass together."""
    sizes = {f"data.sources.{name}.batch": source.batch for name, source in config.data.sources.items()}
    for name, stage in config.stages.items():
        least, size = shares(stage, world.size), "batch" if stage.budget is None else "budget"
        own = sizes if stage.draw == "step" else {}
        for where, batch in {f"stages.{name}.{size}": getattr(stage, size), **own}.items():
            if batch is not None and batch < least:
                what = f"is {batch}, too few for {world.size} processes: stage {name} needs {least}"
                raise UserError(what, where=where, do="raise it, or start fewer processes")
