"""Samples of a stage on its way: a folder for each step at which some were drawn, which appears whole or not at all.

    RUN/samples/STAGE/step-00001000/    see `colatent.evaluate.sampling`

They are there to be looked at and nothing hangs on them: what keeps them from being drawn or written costs a warning,
never the run.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from colatent.checkpoint.storage import remove_folder, sync_folder, temporary_beside
from colatent.checkpoint.write import clean_temporary, step_folder
from colatent.errors import UserError
from colatent.evaluate.sampling import Sampled, draw_samples, write_samples
from colatent.prior.dit import Prior
from colatent.train.prepare import Run


def sample_prior(run: Run, prior: Prior, *, window: int) -> list[Sampled]:
    """What prior and codecs generate, as they are. All processes must ask alike."""
    window = run.world.largest(window)
    return draw_samples(
        prior, run.codecs, sample=run.config.sample, window=window, sources=run.sources, streams=run.streams
    )


class SampleFolder:
    """The samples of one stage."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, step: int, sampled: Sequence[Sampled]) -> None:
        """Keep the samples of a step, in the place of those that it may have already."""
        self._path.mkdir(parents=True, exist_ok=True)
        folder = step_folder(self._path, step)
        aside = temporary_beside(folder)
        try:
            aside.mkdir()
            write_samples(sampled, aside)
            if folder.exists():
                remove_folder(folder)
            os.rename(aside, folder)
            sync_folder(self._path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def drop_after(self, step: int) -> None:
        """Remove what a run that goes on from this step will draw again, and what a crash left half written."""
        clean_temporary(self._path)
        for folder in self._path.glob("step-*"):
            number = folder.name.removeprefix("step-")
            if number.isdecimal() and int(number) > step:
                remove_folder(folder)


@contextmanager
def spared(step: int) -> Iterator[None]:
    """What fails inside is told, and the run goes on."""
    try:
        yield
    except Exception as error:  # memory on a device, a codec's own mistake: whatever it is, the training is sound
        said = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        warnings.warn(f"no samples of step {step}: {said}", stacklevel=3)
