"""How commands judge a model: what a run's config asks for when training has ended, or what the command line names.

Judging stands in this room because it needs a model that generates, which neither training nor evaluation may know.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from colatent.config import Loaded
    from colatent.evaluate.report import Document

EVERY = 5.0
"""Seconds between two lines of progress."""


def train_and_judge(loaded: Loaded, *, resume: bool, quiet: bool = False) -> Path:
    """Train a run, draw its curves and let the tasks of its config judge it; returns the run folder.

    With `resume`, what was done is not done again, whether training or judging was interrupted.
    """
    from colatent.evaluate.curves import draw_curves
    from colatent.train.progress import Reporter
    from colatent.train.run import train
    from colatent.train.world import rank

    others = rank() > 0  # of those that train together: the first one tells of it, and does the rest
    folder = train(loaded, resume=resume, reporter=Reporter(quiet=quiet or others))
    if others:
        return folder
    draw_curves(folder)
    config = loaded.config
    if config.tasks:
        judge_model(str(folder), config.tasks, folder=folder, seed=config.seed, device=config.device, quiet=quiet)
    return folder


def judge_model(
    path: str,
    wanted: Mapping[str, Mapping[str, Any]],
    *,
    folder: Path,
    seed: int,
    device: str,
    quiet: bool,
    again: bool = False,
) -> Document:
    """Let tasks judge the model in `path` and write the report into `folder`; returns its document.

    wanted  the settings of each task, by its name
    again   judge although there is a report of this very checkpoint, seed and settings
    """
    from colatent.checkpoint.resolve import resolve_model, run_of
    from colatent.evaluate.report import Subject, judge, stored
    from colatent.evaluate.tasks import build_tasks
    from colatent.generate.model import load
    from colatent.plugins import load_plugins
    from colatent.train.device import pick_device

    plugins = load_plugins()
    tasks, checkpoint = build_tasks(wanted, plugins), resolve_model(path)
    subject = Subject(path=path, checkpoint=checkpoint, run=run_of(path), seed=seed, settings=wanted)
    before, identity = stored(folder), subject.identity()
    if before is not None and not again and all(before.get(key) == value for key, value in identity.items()):
        return before
    model = load(checkpoint.path, plugins=plugins, device=str(pick_device(device)))
    return judge(model, subject, tasks, folder=folder, progress=_Lines(quiet=quiet))


def print_figures(document: Document) -> None:
    """The figures of each task as a table."""
    from colatent.cli.show import print_table
    from colatent.evaluate.report import rows

    for name, found in document["tasks"].items():
        click.echo(f"\n{name}")
        print_table([("", "", "95 % interval", "goal", ""), *rows(found)])


class _Lines:
    """Progress on stderr: a line now and then, and at the end of each piece of work."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._last = quiet, time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._quiet and (done == total or now - self._last >= EVERY):
            self._last = now
            click.echo(f"... {what} {done}/{total}", err=True)
