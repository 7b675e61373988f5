"""That a judge looks at what was held out of training, and at nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.checkpoint.run import CONFIG, RunFolder
from colatent.config.schema import Settings
from colatent.errors import UserError


def check_material(run: RunFolder, ours: Settings, *, name: str, dataset: type[Settings], keys: Iterable[str]) -> None:
    """Refuse settings of the task `name` that are not those of the dataset of that name in the run's config."""
    from colatent.config import load, validate

    for source_name, source in load(run.path / CONFIG).config.data.sources.items():
        if source.dataset != name:
            continue
        theirs = validate(dataset, source.config, where=f"data.sources.{source_name}.config")
        for key in keys:
            if getattr(theirs, key) != getattr(ours, key):
                what = f"is {getattr(ours, key)}, and the run was trained with {key} {getattr(theirs, key)}"
                raise UserError(what, where=f"task {name!r}, {key}", do="give it the same value")
