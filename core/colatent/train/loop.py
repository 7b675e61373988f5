"""The loop: draw, loss, step, log, evaluate, save. Reads top to bottom; stages say what the loss is.

Everything that a run needs to go on bit for bit is in a checkpoint: weights, their average, the optimiser's moments,
the position in the data and the step. Randomness hangs on names, so there is no generator state to keep.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from colatent.checkpoint.codecs import load_weights
from colatent.checkpoint.folder import Checkpoint, newest
from colatent.checkpoint.run import RunFolder
from colatent.checkpoint.write import clean_temporary, prune, write_checkpoint
from colatent.config.schema import StageConfig
from colatent.data.mixture import Drawn, Mixture
from colatent.errors import UserError
from colatent.train.board import Board
from colatent.train.interrupts import Interrupts
from colatent.train.optimiser import (
    MovingAverage,
    build_optimiser,
    learning_rate,
    load_optimiser,
    optimiser_tensors,
)
from colatent.train.progress import Reporter
from colatent.train.versions import versions


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str
    module: nn.Module

    def loss(self, drawn: Sequence[Drawn], step: int) -> tuple[Tensor, dict[str, float], int]: ...

    def evaluate(self) -> dict[str, float]: ...

    def finish(self) -> None: ...

    def contents(self) -> dict[str, dict[str, Any]]: ...


class Trainer:
    """One stage under training."""

    def __init__(
        self,
        stage: Stage,
        config: StageConfig,
        *,
        folder: RunFolder,
        mixture: Mixture,
        fingerprint: str,
        device: torch.device,
        reporter: Reporter,
    ) -> None:
        self.stage, self.config, self.folder, self.mixture = stage, config, folder, mixture
        self.fingerprint, self.device, self.reporter = fingerprint, device, reporter
        parameters = [parameter for parameter in stage.module.parameters() if parameter.requires_grad]
        self.parameters = parameters
        self.optimiser = build_optimiser(parameters, config) if parameters else None
        self.average = MovingAverage(stage.module, decay=config.ema) if config.ema and parameters else None
        self.step = 0

    def run(self) -> None:
        """Train to the last step, finish the stage and save it."""
        steps = self.config.steps if self.parameters else self.step  # a frozen codec has nothing to train
        with (
            Interrupts() as interrupts,
            self.reporter.stage(self.stage.name, self.config.steps) as progress,
            Board(self.folder.path, self.stage.name, step=self.step) as self.board,
        ):
            self.stage.module.train()
            if self.step == 0 and self.parameters:
                self._evaluate()
            while self.step < steps:
                record = self._train_step()
                progress.update(self.step, record)
                if self._due(self.config.eval_every):
                    self._evaluate()
                if self._due(self.config.save_every):
                    self.save()
                if interrupts.asked and self.step < steps:
                    self.save()
                    interrupts.stop(self.folder.path)
            self._use_average()
            self._evaluate()
            self.stage.module.eval()
            self.stage.finish()
            self.step = self.config.steps
            self.save()
            if interrupts.asked:  # during the last step or what follows it: the next stage must not begin
                interrupts.stop(self.folder.path)

    def _train_step(self) -> dict[str, float]:
        assert self.optimiser is not None
        start, drawn = time.perf_counter(), self.mixture.take(self.config.batch)
        rate = learning_rate(self.config, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with self._precision():
            loss, parts, units = self.stage.loss(drawn, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip))
        self._check_finite(float(loss.detach()), norm, drawn, parts)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.stage.module)
        self.step += 1
        seconds = time.perf_counter() - start
        record = {
            "loss": float(loss.detach()),
            **parts,
            "lr": rate,
            "grad_norm": norm,
            "tokens_per_second": units / seconds,
        }
        if self.step % self.config.log_every == 0 or self.step == self.config.steps:
            self.folder.log({"stage": self.stage.name, "step": self.step, **record})
            self.board.scalars(self.step, record, under="train/")
        return record

    def _precision(self) -> Any:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _check_finite(self, loss: float, norm: float, drawn: Sequence[Drawn], parts: dict[str, float]) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        keys = ", ".join(one.key for one in drawn[:4])
        bad = ", ".join(f"{name} {value:.3g}" for name, value in parts.items())
        what = f"loss {loss:.3g} ({bad}), gradient norm {norm:.3g} at step {self.step} on samples {keys}, ..."
        do = "nothing was changed by this step; lower lr or raise warmup and --resume from the last checkpoint"
        raise UserError(what, where=f"stages.{self.stage.name}", do=do)

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0 and self.step < self.config.steps

    def _evaluate(self) -> None:
        """Score held-out samples with the averaged weights, which are the ones that count."""
        kept = None
        if self.average is not None and self.average.updates:
            kept = {name: value.clone() for name, value in self.stage.module.state_dict().items()}
            self.stage.module.load_state_dict(self.average.shadow)
        self.stage.module.eval()
        found = self.stage.evaluate()
        self.stage.module.train()
        if kept is not None:
            self.stage.module.load_state_dict(kept)
        self.folder.log({"stage": self.stage.name, "step": self.step, "eval": found})
        self.board.scalars(self.step, found, under="heldout/")
        self.reporter.evaluated(self.stage.name, self.step, found)

    def _use_average(self) -> None:
        """A codec ends as its average: there is one codec, and priors must see the one that decodes their samples."""
        if self.stage.name == "codec" and self.average is not None and self.average.updates:
            self.stage.module.load_state_dict(self.average.shadow)

    def save(self) -> None:
        """Write a checkpoint and drop the oldest ones."""
        folder = self.folder.checkpoints(self.stage.name)
        contents = self.stage.contents()
        tensors: dict[str, Any] = {self.stage.name: self.stage.module.state_dict(), **contents.get("tensors", {})}
        if self.optimiser is not None:
            tensors["optimiser"] = optimiser_tensors(self.optimiser)
        if self.average is not None:
            tensors[f"{self.stage.name}.ema"] = self.average.shadow
        state = {"step": self.step, "data": self.mixture.state()}
        state["ema_updates"] = 0 if self.average is None else self.average.updates
        write_checkpoint(
            folder,
            step=self.step,
            tensors={name: group for name, group in tensors.items() if group},
            documents={"state": state, **contents.get("documents", {})},
            files=contents.get("files", {}),
            fingerprint=self.fingerprint,
            versions=versions(),
        )
        prune(folder, keep=2)

    def resume(self) -> Checkpoint | None:
        """Take up the newest valid checkpoint of this stage, if there is one."""
        folder = self.folder.checkpoints(self.stage.name)
        clean_temporary(folder)
        checkpoint = newest(folder, on_skip=self.reporter.skipped)
        if checkpoint is None:  # what a run logged before its first checkpoint is done again
            self.folder.truncate_metrics(after_step=-1, stage=self.stage.name)
            return None
        where, state = str(checkpoint.path), checkpoint.document("state")
        if self.optimiser is not None:
            load_weights(self.stage.module, checkpoint.tensors(self.stage.name), where=where)
            load_optimiser(self.optimiser, checkpoint.tensors("optimiser"))
        if self.average is not None:
            self.average.load(checkpoint.tensors(f"{self.stage.name}.ema"), state["ema_updates"])
        self.mixture.load_state(state["data"])
        self.step = state["step"]
        self.folder.truncate_metrics(after_step=self.step, stage=self.stage.name)
        return checkpoint
