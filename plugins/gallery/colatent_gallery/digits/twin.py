"""What mixing costs: the held-out flow losses of text in a mixed run and in its twin that learnt text alone.

Both are read from the runs' own metrics, at the fixed noise levels of their last evaluation; a source is compared where
both runs have it and it generates the same streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from colatent.checkpoint.run import RunFolder
from colatent.errors import UserError

Losses = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Losses by source and noise level, in the run and in its twin, and the ratio of their sums by source."""

    mixed: Mapping[str, Mapping[str, float]]
    alone: Mapping[str, Mapping[str, float]]
    ratios: Mapping[str, float]


def cost_of_mixing(run: RunFolder | None, twin: str) -> Cost:
    """The losses of `run` beside those of the run in the folder `twin`."""
    if run is None:
        raise UserError("the model lies in no run folder, so it has no losses", where="twin", do="leave out twin=")
    mixed, alone = last_losses(run), last_losses(RunFolder.open(twin))
    shared = [source for source in alone if source in mixed and mixed[source].keys() == alone[source].keys()]
    if not shared:
        what = f"has no source in common with {run.path} (it has {', '.join(alone)})"
        raise UserError(what, where=f"twin {twin}", do="give its sources the same names")
    return Cost(
        mixed={source: mixed[source] for source in shared},
        alone={source: alone[source] for source in shared},
        ratios={source: sum(mixed[source].values()) / sum(alone[source].values()) for source in shared},
    )


def last_losses(run: RunFolder) -> Losses:
    """Flow losses at fixed noise levels, by SOURCE/STREAM, as last evaluated."""
    found: Losses = {}
    for record in run.metrics():
        for name, value in record.get("eval", {}).items():
            source, mark, t = name.rpartition("/t=")
            if mark:
                found.setdefault(source, {})[t] = value
    if not found:
        raise UserError("has no held-out flow losses", where=str(run.path), do="name a run with a trained prior")
    return found
