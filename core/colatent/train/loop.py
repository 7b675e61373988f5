"""The loop: draw, loss, step, log, evaluate, save. Reads top to bottom; stages say what the loss is.

Everything that a run needs to go on bit for bit is in a checkpoint: weights, their average, the optimiser's moments,
the position in the data and the step. Randomness hangs on names, so there is no generator state to keep.

A stage is one part or several (codecs, prior). Where averaged weights count they stand in for all parts at once, so
that a prior is never scored or saved with another codec than its own.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

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
    build_optimisers,
    learning_rate,
    load_optimisers,
    optimiser_tensors,
)
from colatent.train.progress import Reporter
from colatent.train.stage import Stage, add_up
from colatent.train.versions import versions

Weights = dict[str, Tensor]


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
        found = {name: [p for p in part.module.parameters() if p.requires_grad] for name, part in stage.parts.items()}
        self.parameters = {name: parameters for name, parameters in found.items() if parameters}
        self.parts = {name: stage.parts[name] for name in self.parameters}
        self.optimisers = build_optimisers(self.parts, config)
        averaged = self.parts if config.ema else {}
        self.averages = {name: MovingAverage(part.module, decay=config.ema) for name, part in averaged.items()}
        self.settled: set[str] = set()
        self.step = 0

    def run(self) -> None:
        """Train to the last step, finish the stage and save it."""
        steps = self.config.steps if self.parameters else self.step  # a frozen codec has nothing to train
        if not self.parameters:
            self.reporter.say(f"{self.stage.name}: nothing to train, only the scale of latents to measure")
        with (
            Interrupts() as interrupts,
            self.reporter.stage(self.stage.name, self.config.steps) as progress,
            Board(self.folder.path, self.stage.name, step=self.step) as self.board,
        ):
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
            self._settle(name for name, part in self.parts.items() if part.settles)
            self._evaluate()
            self.stage.finish()
            self.step = self.config.steps
            self.save()
            if interrupts.asked:  # during the last step or what follows it: the next stage must not begin
                interrupts.stop(self.folder.path)

    def _train_step(self) -> dict[str, float]:
        start, drawn = time.perf_counter(), self.mixture.take(self.config.batch)
        rate = learning_rate(self.config, self.step)
        for group in (group for optimiser in self.optimisers.values() for group in optimiser.param_groups):
            group["lr"] = rate * group["rate"]
        moving = self._set_moving()
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        loss, parts, units = self._passes(drawn)
        parameters = [parameter for some in self.parameters.values() for parameter in some]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.clip))
        self._check_finite(loss, norm, drawn, parts)
        for optimiser in self.optimisers.values():
            optimiser.step()
        for name in moving & self.averages.keys():
            self.averages[name].update(self.parts[name].module)
        self.step += 1
        seconds = time.perf_counter() - start
        record = {
            "loss": loss,
            **parts,
            "lr": rate,
            "grad_norm": norm,
            "tokens_per_second": units / seconds,
        }
        if self.step % self.config.log_every == 0 or self.step == self.config.steps:
            self.folder.log({"stage": self.stage.name, "step": self.step, **record})
            self.board.scalars(self.step, record, under="train/")
        return record

    def _passes(self, drawn: Sequence[Drawn]) -> tuple[float, dict[str, float], int]:
        """Gradients of the loss of these samples, in `accumulate` passes; the loss, its parts and the data units."""
        size = math.ceil(len(drawn) / self.config.accumulate)
        some = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        with self._precision():
            prepared = [self.stage.prepare(one, self.step, alone=len(some) == 1) for one in some]
        total, parts, units = 0.0, Counter[str](), 0
        counts = add_up(one.counts for one in prepared)
        for one in prepared:
            with self._precision():
                loss, its_parts, its_units = self.stage.loss(one, counts, self.step)
            loss.backward()
            total, units = total + float(loss.detach()), units + its_units
            parts.update(its_parts)
        return total, dict(parts), units

    def _set_moving(self) -> set[str]:
        """Let the parts that train at this step train, and no others; gives their names."""
        self._settle(name for name, part in self.parts.items() if part.until == self.step)
        moving = {name for name, part in self.parts.items() if part.trains(self.step)}
        for name, part in self.parts.items():
            part.module.train(name in moving)
            for parameter in self.parameters[name]:
                parameter.requires_grad_(name in moving)
        return moving

    def _precision(self) -> Any:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _check_finite(self, loss: float, norm: float, drawn: Sequence[Drawn], parts: dict[str, float]) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self.folder.log({"stage": self.stage.name, "step": self.step + 1, "loss": loss, **parts, "grad_norm": norm})
        keys = ", ".join(one.key for one in drawn[:4])
        bad = ", ".join(f"{name} {value:.3g}" for name, value in parts.items())
        what = f"loss {loss:.3g} ({bad}), gradient norm {norm:.3g} at step {self.step} on samples {keys}, ..."
        do = "nothing was changed by this step; lower lr or raise warmup and --resume from the last checkpoint"
        raise UserError(what, where=f"stages.{self.stage.name}", do=do)

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0 and self.step < self.config.steps

    def _evaluate(self) -> None:
        """Score held-out samples with the averaged weights, which are the ones that count."""
        with self._averaged(self.parts):
            for part in self.parts.values():
                part.module.eval()
            found = self.stage.evaluate()
        if not found:  # nothing that is under training can be scored
            return
        self.folder.log({"stage": self.stage.name, "step": self.step, "eval": found})
        self.board.scalars(self.step, found, under="heldout/")
        self.reporter.evaluated(self.stage.name, self.step, found)

    @contextmanager
    def _averaged(self, names: Iterable[str]) -> Iterator[dict[str, Weights]]:
        """The averages of these parts in place of the weights under training, which are given, of all parts."""
        raw = {name: part.module.state_dict() for name, part in self.parts.items()}
        swapped = [name for name in names if self._has_average(name) and name not in self.settled]
        for name in swapped:
            raw[name] = {key: value.clone() for key, value in raw[name].items()}
            self.parts[name].module.load_state_dict(self.averages[name].shadow)
        try:
            yield raw
        finally:
            for name in swapped:
                self.parts[name].module.load_state_dict(raw[name])

    def _settle(self, names: Iterable[str]) -> None:
        """Make parts their average, for good. There is one codec, and priors must see the one that decodes their
        samples; its scale is measured, and becomes part of it, after that."""
        for name in names:
            if self._has_average(name) and name not in self.settled:
                self.parts[name].module.load_state_dict(self.averages[name].shadow)
                self.settled.add(name)

    def _has_average(self, name: str) -> bool:
        return name in self.averages and bool(self.averages[name].updates)

    def save(self) -> None:
        """Write a checkpoint and drop the oldest ones."""
        folder = self.folder.checkpoints(self.stage.name)
        state: dict[str, Any] = {"step": self.step, "data": self.mixture.state()}
        state["ema_updates"] = {name: average.updates for name, average in self.averages.items()}
        with self._averaged(name for name, part in self.parts.items() if part.settles) as raw:
            contents = self.stage.contents()
            tensors: dict[str, Any] = {**raw, **contents.get("tensors", {})}
            tensors["optimiser"] = optimiser_tensors(self.optimisers)
            tensors |= {f"{name}.ema": average.shadow for name, average in self.averages.items()}
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
        for name, part in self.parts.items():
            load_weights(part.module, checkpoint.tensors(name), where=where)
        if self.optimisers:
            load_optimisers(self.optimisers, checkpoint.tensors("optimiser"))
        for name, average in self.averages.items():
            average.load(checkpoint.tensors(f"{name}.ema"), state["ema_updates"][name])
        self.stage.go_on(checkpoint)
        self.mixture.load_state(state["data"])
        self.step = state["step"]
        self.folder.truncate_metrics(after_step=self.step, stage=self.stage.name)
        return checkpoint
