"""`kill -9` at moments drawn uniformly over the wall time of a run, and what has to hold afterwards.

A run is started, killed, started again and so on until it ends by itself; then it must be the run that nothing
stopped, to the last bit, and another one begins. A killed process had everything imported before it began, so that
the moments fall on its work: it is forked off, and what is killed is `train` like any other. Some begin from nothing,
and some wait for a save to begin and are killed within it.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from colatent.checkpoint.folder import valid_checkpoints
from colatent.checkpoint.run import FINISHED, RunFolder
from plugins_for_tests.runs import last, metrics
from reliability.watched import EVERY, PHASES, STAGES, Place, place_in, train_at

Start = Literal["warm", "cold"]
IMPORTED = (
    "torch._dynamo",  # by every optimiser
    "torch.utils.tensorboard.summary",
    "colatent.train.run",
    "colatent_text.codec",
    "plugins_for_tests.grid_codec",
)
"""What a run imports by and by."""


class LostRunError(Exception):
    """A run that was not found again, or is another than it would have been."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill, and what was found after it.

    start     whether the process had everything imported before it began
    aimed     whether it waited for a save; else its moment was drawn over the wall time
    seconds   from the start of the process to the kill
    phase     what was being done
    stage     of the run, empty before the first
    step      steps of the stage that were done
    kept      step of its newest valid checkpoint
    lost      steps that have to be done again
    complete  valid checkpoints of the stage
    torn      whether it left something half written, or half removed
    """

    start: Start
    aimed: bool
    seconds: float
    phase: str
    stage: str
    step: int
    kept: int
    lost: int
    complete: int
    torn: bool


class Killer:
    """Runs in `folder`, and their kills. `whole` is the one that nothing stopped."""

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.ended = 0
        for name in IMPORTED:
            importlib.import_module(name)
        self.whole = folder / "whole"
        self.seconds = {"warm": self._whole(self.whole, "warm"), "cold": self._whole(folder / "cold", "cold")}
        place = place_in(folder / "whole.place")
        self.share = place.saving / self.seconds["warm"]  # of the wall time of a run that goes into saves
        self.saves, self.saving = place.saves, place.saving / place.saves
        self._check_ended(folder / "cold")

    def kills(self, count: int, *, aimed: int = 0, cold: int = 0) -> Iterator[Kill]:
        """So many kills at moments of the clock, `cold` of them of processes that import first; then `aimed` ones
        inside saves. The runs that are under way at the end go on to theirs."""
        plan: list[tuple[Start, bool]] = [("cold" if number < cold else "warm", False) for number in range(count)]
        self.rng.shuffle(plan)
        run = self._new()
        for start, at_save in [*plan, *[("warm", True)] * aimed]:
            while (kill := self._killed(run, start, aimed=at_save)) is None:
                run = self._new(run)
            yield kill
        self._whole(run, "warm")
        self._new(run)

    def _new(self, before: Path | None = None) -> Path:
        """Where the next run lies, once the one before was looked at."""
        if before is not None:
            self._check_ended(before)
            self.ended += 1
            shutil.rmtree(before)
        return self.folder / f"run-{self.ended}"

    def _killed(self, run: Path, start: Start, *, aimed: bool) -> Kill | None:
        """Start a run or go on with it, and kill it at a moment; None where it ended before."""
        before, old = {stage: kept(run, stage) for stage in STAGES}, half_written(run)
        place = place_in(run.with_suffix(".place"), fresh=True)
        begun, pid = time.monotonic(), _start(run, start)
        over = self._wait_for_a_save(pid, place) if aimed else _over(pid, within=self._moment(start))
        seconds = time.monotonic() - begun
        if not over:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        self._check_start(run, place, before)
        if os.WIFSIGNALED(status):
            return self._look(run, place, before, old, start=start, aimed=aimed, seconds=seconds)
        if os.WEXITSTATUS(status):
            raise LostRunError(f"it would not go on:\n{run.with_suffix('.log').read_text()}")
        if not any(before.values()):  # a whole run: the machine has less to do than when the time was taken
            self.seconds[start] = min(seconds, self.seconds[start])
        return None

    def _moment(self, start: Start) -> float:
        return self.rng.uniform(0, self.seconds[start])

    def _wait_for_a_save(self, pid: int, place: Place) -> bool:
        """Wait for the n-th save and for a part of the time that one takes; whether the run was over before."""
        number = self.rng.randint(1, self.saves)
        while place.saves < number and not _over(pid):
            time.sleep(0.001)
        return _over(pid, within=self.rng.uniform(0, self.saving))

    def _check_start(self, run: Path, place: Place, before: dict[str, int]) -> None:
        """It must have gone on from the newest checkpoint that was there."""
        if place.began_stage and place.began_step != before[STAGES[place.began_stage - 1]]:
            raise LostRunError(f"{run}: it went on from step {place.began_step}, and had saved {before}")

    def _look(self, run: Path, place: Place, before: dict[str, int], old: set[Path], **known: object) -> Kill:
        """What a kill left. Steps are lost back to the last checkpoint and no further, two checkpoints are whole as
        soon as two were saved."""
        stage = STAGES[place.stage - 1] if place.stage else ""
        valid = [one.step for one in valid_checkpoints(run / "checkpoints" / stage, verify=True)] if stage else []
        newest = max(valid, default=0)
        due = max(place.saved, before[stage]) if stage else 0
        if any(kept(run, name) < before[name] for name in STAGES) or newest < due:
            raise LostRunError(f"{run}: steps {valid} of {stage} are there, step {due} was saved; before: {before}")
        if stage and len(valid) < min(2, -(-due // EVERY[stage])):
            raise LostRunError(f"{run}: of {stage} only {valid} are there, and step {due} was saved")
        step = max(place.step, newest)  # it may have been killed before it had read where it stands
        if stage and step - newest > EVERY[stage]:
            raise LostRunError(f"{run}: {step - newest} steps of {stage} are lost")
        return Kill(
            phase=PHASES[place.phase],
            stage=stage,
            step=step,
            kept=newest,
            lost=step - newest,
            complete=len(valid),
            torn=bool(half_written(run) - old),
            **known,  # type: ignore[arg-type]
        )

    def _whole(self, run: Path, start: Start) -> float:
        """A run that nothing stops, from where it is; gives its seconds."""
        begun = time.monotonic()
        place_in(run.with_suffix(".place"), fresh=True)
        if os.waitpid(_start(run, start), 0)[1]:
            raise LostRunError(run.with_suffix(".log").read_text())
        return time.monotonic() - begun

    def _check_ended(self, run: Path) -> None:
        """Weights, their averages, the optimiser's state and every document are those of the whole run, to the bit, and
        so are the metrics but for what a clock measured."""
        for stage in STAGES:
            here, there = last(run, stage).manifest.files, last(self.whole, stage).manifest.files
            if here != there:
                other = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
                raise LostRunError(f"{run}: stage {stage} ended otherwise: {', '.join(other)}")
        if metrics(run) != metrics(self.whole):
            raise LostRunError(f"{run}: its metrics are others")
        if RunFolder.open(run).state().status != FINISHED:
            raise LostRunError(f"{run}: it is not finished")


def kept(run: Path, stage: str) -> int:
    """Step of a stage's newest valid checkpoint, 0 where there is none."""
    return next((one.step for one in valid_checkpoints(run / "checkpoints" / stage, verify=True)), 0)


def half_written(run: Path) -> set[Path]:
    """What a save had not finished, and a removal."""
    return {path for path in (run / "checkpoints").rglob(".tmp-*") if path.is_dir()}


def _start(run: Path, start: Start) -> int:
    """The process of a run; what it prints goes into RUN.log."""
    place = run.with_suffix(".place")
    pid = os.fork()
    if pid:
        return pid
    try:
        log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if start == "cold":
            path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
            command = [sys.executable, "-m", "reliability.watched", str(run), str(place)]
            os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})
        train_at(run, place_in(place))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _over(pid: int, *, within: float = 0.0) -> bool:
    """Whether a process ends by itself in so many seconds; its status can still be asked for."""
    until = time.monotonic() + within
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, 0.01))
    return True
