"""A run that can be watched while it goes on, and looked at after it was killed.

It is the real `train` over two modalities and both stages. What it is doing stands in a small file that the watcher
has mapped too: a process that was killed writes nothing more, so what stands there is where it died.

As a program it is the same run from a cold start: `python -m reliability.watched RUN PLACE`.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVERY = {"codec": 1, "prior": 1}
"""Steps from checkpoint to checkpoint, by stage."""
PRIOR = {"layers": 1, "dual_layers": 1, "width": 160, "heads": 2}
"""Large beside its steps, whose batches are small: so more than a third of a run's time goes into saves."""
STAGES = tuple(EVERY)
IMPORTING, STARTING, RESUMING, STEP, EVALUATING, SAVING, BETWEEN = PHASES = (
    "importing",
    "starting",
    "reading a checkpoint",
    "training step",
    "evaluating",
    "inside a save",
    "between these",
)
METHODS = {"resume": RESUMING, "train_step": STEP, "_evaluate": EVALUATING, "save": SAVING}
"""Methods of the loop, and the phase of whoever is inside one."""


class Place(ctypes.Structure):
    """Where a run stands.

    phase          index into PHASES
    stage          1 and up for STAGES, 0 before the first
    step           steps of the stage that are done
    saved          step of its last checkpoint that was done, 0 before the first
    began_stage    the stage that this process began with, as `stage`
    began_step     the step that it went on from
    saves          checkpoints begun by this process
    saving         seconds that those took which are done
    """

    _fields_ = [
        *((name, ctypes.c_int) for name in ("phase", "stage", "step", "saved", "began_stage", "began_step", "saves")),
        ("saving", ctypes.c_double),
    ]


def place_in(path: Path, *, fresh: bool = False) -> Place:
    """The place in a file, shared with every process that opens it too."""
    if fresh:
        path.write_bytes(bytes(ctypes.sizeof(Place)))
    with open(path, "r+b") as file:
        return Place.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(Place)))


def train_at(folder: Path, place: Place) -> None:
    """Start the run, or go on with it; `place` tells where it is."""
    import pytest

    from colatent.train.loop import Trainer
    from plugins_for_tests.grid import CONFIG, plugins_with_grid
    from plugins_for_tests.runs import changed, run

    usual = {"steps": 8, "batch": 2, "warmup": 2, "lr": 5e-3, "ema": 0.9, "eval_every": 4, "log_every": 1}
    stages = {stage: {**usual, "save_every": every} for stage, every in EVERY.items()}
    tree = changed(CONFIG, stages=stages, flow={"history_dropout": 0.3})
    tree = changed(
        tree, prior=PRIOR, data__sources__paint__config={"size": 5}, data__sources__describe__config={"size": 5}
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, phase in METHODS.items():
            patch.setattr(Trainer, name, _telling(getattr(Trainer, name), PHASES.index(phase), place))
        place.phase = PHASES.index(STARTING)
        run(tree, folder, resume=True, plugins=plugins_with_grid())


def _telling(method: Callable[..., Any], phase: int, place: Place) -> Callable[..., Any]:
    """A method of the loop that says when it is entered and left."""

    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        if phase == PHASES.index(RESUMING):
            place.step = place.saved = 0
        place.stage, place.phase = 1 + STAGES.index(self.stage.name), phase
        place.saves += PHASES[phase] == SAVING
        result = method(self, *args, **kwargs)
        place.step, place.phase = self.step, PHASES.index(BETWEEN)
        if PHASES[phase] == SAVING:
            place.saved, place.saving = self.step, place.saving + time.perf_counter() - begun
        if PHASES[phase] == RESUMING:
            place.saved = self.step
            if not place.began_stage:
                place.began_stage, place.began_step = place.stage, self.step
        return result

    return told


if __name__ == "__main__":
    train_at(Path(sys.argv[1]), place_in(Path(sys.argv[2])))
