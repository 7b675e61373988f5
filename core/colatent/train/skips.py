"""Steps whose loss or gradient is not finite: the first one ends the run, or so many are left out before one does.

A step that is left out is a step all the same: the schedule and the position in the data go on, and only the weights,
their averages and the optimiser's moments stay. What passes leave in buffers (running statistics) is put back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from colatent.checkpoint.metrics import SKIPPED
from colatent.data.mixture import Drawn
from colatent.errors import UserError
from colatent.train.progress import Reporter
from colatent.train.spread import Passed
from colatent.train.world import World


class Skips:
    """Those of one stage; `count` of them so far. Losses and norms are of the whole step, so all ranks decide alike."""

    def __init__(
        self,
        stage: str,
        limit: int,
        *,
        modules: Iterable[nn.Module],
        log: Callable[[int, dict[str, Any]], None],
        reporter: Reporter,
        world: World,
    ) -> None:
        """`modules`: what trains, whose buffers are put back. `log`: takes a step and what to say of it."""
        self.count = 0
        self._stage, self._limit, self._modules = stage, limit, list(modules)
        self._log, self._reporter, self._world = log, reporter, world
        self._kept: list[Tensor] = []

    def keep(self) -> None:
        """Keep the buffers as they are before a step that may be left out."""
        self._kept = [buffer.clone() for buffer in self._buffers()] if self.count < self._limit else []

    def take(self, passed: Passed, norm: float, drawn: Sequence[Drawn], *, step: int) -> bool:
        """Whether to leave out this step. Raises `UserError` where it is one too many."""
        if math.isfinite(passed.loss) and math.isfinite(norm):
            return False
        record = {"loss": passed.loss, **passed.parts, "grad_norm": norm}
        what = self._told(passed, norm, drawn, step=step)
        if self.count >= self._limit:  # above it: a resumed run may have been given a lower one
            self._log(step, record)
            do = "nothing was changed by this step; lower lr or raise warmup and --resume from the last checkpoint"
            raise UserError(what, where=f"stages.{self._stage}", do=f"{do}, if any")
        self.count += 1
        self._put_back()
        self._log(step, {**record, SKIPPED: self.count})
        self._reporter.say(f"stages.{self._stage}: {what}; skipped, {self.count} of at most {self._limit}")
        return True

    def _told(self, passed: Passed, norm: float, drawn: Sequence[Drawn], *, step: int) -> str:
        """What is not finite, with samples of those ranks whose share it comes from, where that can be told."""
        told = math.isfinite(passed.loss) or not passed.sound
        some = self._world.gather(", ".join(one.key for one in drawn[:4]) if told else "")
        keys = ", ".join(filter(None, some))
        bad = ", ".join(f"{name} {value:.3g}" for name, value in passed.parts.items())
        return f"loss {passed.loss:.3g} ({bad}), gradient norm {norm:.3g} at step {step} on samples {keys}, ..."

    @torch.no_grad()
    def _put_back(self) -> None:
        for buffer, before in zip(self._buffers(), self._kept, strict=True):
            buffer.copy_(before)

    def _buffers(self) -> list[Tensor]:
        return [buffer for module in self._modules for buffer in module.buffers()]
