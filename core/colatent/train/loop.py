"""The loop: draw, loss, step, log, evaluate, save. Reads top to bottom; stages say what the loss is.

Everything that a run needs to go on bit for bit is in a checkpoint: weights, their average, the optimiser's moments,
the position in the data and the step. Randomness hangs on names, so there is no generator state to keep.

Where several processes train together, each computes its share of every step and all hold the same weights; the first
one writes what there is to write.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from colatent.checkpoint.codecs import load_weights
from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.metrics import SKIPPED
from colatent.checkpoint.run import RunFolder
from colatent.config.stages import StageConfig
from colatent.data.mixture import Draws
from colatent.train.ahead import Ahead
from colatent.train.averages import Averages
from colatent.train.board import Board
from colatent.train.engine import build_engine, clip, cut
from colatent.train.interrupts import Interrupts
from colatent.train.optimiser import build_optimisers, learning_rate, load_optimisers, optimiser_tensors
from colatent.train.progress import Reporter
from colatent.train.remote import Remote
from colatent.train.samples import SampleFolder, spared
from colatent.train.saved import Saved
from colatent.train.skips import Skips
from colatent.train.spread import Spread
from colatent.train.stage import Part, Stage
from colatent.train.world import World

Found = TypeVar("Found")


class Trainer:
    """One stage under training."""

    def __init__(
        self,
        stage: Stage,
        config: StageConfig,
        *,
        folder: RunFolder,
        mixture: Draws,
        fingerprint: str,
        device: torch.device,
        reporter: Reporter,
        world: World,
        remote: Remote | None = None,
    ) -> None:
        """`remote`: who gets the numbers beside the run folder."""
        self.remote, self.samples = remote, SampleFolder(folder.samples / stage.name)
        self.stage, self.config, self.folder, self.mixture = stage, config, folder, mixture
        self.reporter, self.world = reporter, world
        checkpoints = folder.checkpoints(stage.name)
        self.saved = Saved(checkpoints, world=world, fingerprint=fingerprint, reporter=reporter)
        trained = {name: part for name, part in stage.parts.items() if any(one.requires_grad for one in weights(part))}
        self.engine = build_engine(trained, parallel=config.parallel, world=world, device=device)
        self.spread = Spread(stage, config, engine=self.engine, world=world, device=device)
        self.ahead = Ahead(mixture, config.batch, self.spread.prepare)
        self.parts = {name: stage.parts[name] for name in trained}  # asked again: their weights may be shards now
        self.parameters = {
            name: [one for one in weights(part) if one.requires_grad] for name, part in self.parts.items()
        }
        self.optimisers = build_optimisers(self.parts, config)
        self.averages = Averages(self.parts, decay=config.ema)
        modules = [part.module for part in self.parts.values()]
        self.skips = Skips(stage.name, config.skip, modules=modules, log=self._log, reporter=reporter, world=world)
        self.step = 0

    def run(self) -> None:
        """Train to the last step, finish the stage and save it."""
        steps = self.config.steps if self.parameters else self.step  # a frozen codec has nothing to train
        if not self.parameters:
            self.reporter.say(f"{self.stage.name}: nothing to train, only the scale of latents to measure")
        with (
            Interrupts(largest=self.world.largest, tells=self.world.leads) as interrupts,
            self.reporter.stage(self.stage.name, self.config.steps) as progress,
            self._open_board() as self.board,
        ):
            if self.step == 0 and self.parameters:
                self._evaluate()
            while self.step < steps:
                record = self.train_step()
                progress.update(self.step, record)
                if self._due(self.config.eval_every):
                    self._evaluate()
                if self._due(self.config.sample_every):
                    self._sample()
                if self._due(self.config.save_every):
                    self.save()
                if self.step < steps and interrupts.due():
                    self.save()
                    interrupts.stop(self.folder.path)
            self.averages.settle(name for name, part in self.parts.items() if part.settles)
            self._evaluate()
            if self.config.sample_every:
                self._sample()
            self.stage.finish()
            self.step = self.config.steps
            self.save()
            if interrupts.due():  # during the last step or what follows it: the next stage must not begin
                interrupts.stop(self.folder.path)

    def _open_board(self) -> Board:
        leads = self.world.leads
        return Board(self.folder.path, self.stage.name, step=self.step, writes=leads, remote=self.remote)

    def train_step(self) -> dict[str, float]:
        """Draw a batch, compute its gradient, clip it, move the weights or skip that; what there is to say of it."""
        start, ready = time.perf_counter(), self.ahead.take(self.step)
        rate = learning_rate(self.config, self.step)
        for group in (group for optimiser in self.optimisers.values() for group in optimiser.param_groups):
            group["lr"] = rate * group["rate"]
        moving = self._set_moving()
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        self.skips.keep()
        passed = self.spread.gradients(ready, self.step, meanwhile=self._look_ahead)
        parameters = [parameter for some in self.parameters.values() for parameter in some]
        norm = clip(parameters, self.config.clip)
        skipped = self.skips.take(passed, norm, ready.drawn, step=self.step + 1)
        if not skipped:
            self._move(moving)
        self.step += 1
        seconds = time.perf_counter() - start
        record = {
            "loss": passed.loss,
            **passed.parts,
            "lr": rate,
            "grad_norm": norm,
            "tokens_per_second": passed.units / seconds,
        }
        if not skipped and (self.step % self.config.log_every == 0 or self.step == self.config.steps):
            self._log(self.step, record)
            self.board.scalars(self.step, record, under="train/")
        return record

    def _look_ahead(self) -> None:
        """Have the next step's samples ready, if there is one and they can be."""
        if self.step + 1 < self.config.steps and self.stage.early():
            self.ahead.look(self.step + 1)

    def _set_moving(self) -> set[str]:
        """Let the parts that train at this step train, and no others; gives their names."""
        self.averages.settle(name for name, part in self.parts.items() if part.until == self.step)
        moving = {name for name, part in self.parts.items() if part.trains(self.step)}
        for name, part in self.parts.items():
            part.module.train(name in moving)
            for parameter in self.parameters[name]:
                parameter.requires_grad_(name in moving)
        return moving

    def _move(self, moving: set[str]) -> None:
        """Move the weights along their gradient, and the averages of these parts after them."""
        for optimiser in self.optimisers.values():
            optimiser.step()
        self.engine.agree()
        self.averages.follow(moving)

    def _log(self, step: int, record: dict[str, Any]) -> None:
        if self.world.leads:
            self.folder.log({"stage": self.stage.name, "step": step, **record})

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0 and self.step < self.config.steps

    def _evaluate(self) -> None:
        """Score held-out samples."""
        found = self._look(self.stage.evaluate)
        if not found:  # nothing that is under training can be scored
            return
        self._log(self.step, {"eval": found})
        self.board.scalars(self.step, found, under="heldout/")
        self.reporter.evaluated(self.stage.name, self.step, found)

    def _sample(self) -> None:
        """Generate a few items, and keep them."""
        with spared(self.step):
            sampled = self._look(self.stage.samples)
            if self.world.leads:
                self.samples.write(self.step, sampled)
                self.board.samples(self.step, sampled)

    def _look(self, work: Callable[[], Found]) -> Found:
        """What the averaged weights give, which are the ones that count."""
        with self.averages.in_place(self.parts):
            for part in self.parts.values():
                part.module.eval()
            return self.engine.look(work)

    def save(self) -> None:
        """Write a checkpoint."""
        state: dict[str, Any] = {"step": self.step, "data": self.ahead.state(), SKIPPED: self.skips.count}
        state["ema_updates"] = {name: average.updates for name, average in self.averages.items()}
        with self.averages.in_place(name for name, part in self.parts.items() if part.settles) as raw:
            contents = self.stage.contents()
            tensors: dict[str, Any] = {**raw, **contents.get("tensors", {})}
            tensors["optimiser"] = optimiser_tensors(self.optimisers)
            tensors |= {f"{name}.ema": average.shadow for name, average in self.averages.items()}
            documents = {"state": state, **contents.get("documents", {})}
            self.saved.write(self.step, tensors=tensors, documents=documents, files=contents.get("files", {}))
        self._count_damage()

    def _count_damage(self) -> None:
        """Stop all where all together have found too many damaged samples, if none has by itself."""
        told = self.world.gather(json.dumps(self.mixture.news()))
        with self.world.together():
            for news in told if self.world.leads else ():
                self.mixture.learn(json.loads(news))

    def resume(self) -> Checkpoint | None:
        """Take up the newest valid checkpoint of this stage, if there is one."""
        checkpoint = self.saved.newest()
        if checkpoint is None:  # what a run logged before its first checkpoint is done again
            self._forget(after_step=-1)
            return None
        where, state = str(checkpoint.path), checkpoint.document("state")
        for name, part in self.parts.items():
            load_weights(part.module, cut(checkpoint.rows(name), part.module.state_dict()), where=where)
        if self.optimisers:
            load_optimisers(self.optimisers, checkpoint.rows("optimiser"))
        for name, average in self.averages.items():
            average.load(cut(checkpoint.rows(f"{name}.ema"), average.shadow), state["ema_updates"][name])
        self.stage.go_on(checkpoint)
        self.ahead.load_state(state["data"])
        self.step = state["step"]
        self.skips.count = state.get(SKIPPED, 0)  # checkpoints of before there were any have none
        self._forget(after_step=self.step)
        return checkpoint

    def _forget(self, *, after_step: int) -> None:
        """Drop what this stage will log and draw again."""
        if self.world.leads:
            self.folder.truncate_metrics(after_step=after_step, stage=self.stage.name)
            self.samples.drop_after(after_step)


def weights(part: Part) -> list[nn.Parameter]:
    """The parameters of a part."""
    return list(part.module.parameters())
