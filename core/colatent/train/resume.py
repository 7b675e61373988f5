"""What a resumed run may not change, beside its networks: what the randomness of its samples hangs on.

Learning rates, schedules and lengths may change (a run that diverged goes on with a smaller step); with another seed or
another objective the steps before and after would belong to different runs, and the stored config would tell of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.run import CONFIG
from colatent.config.load import load
from colatent.config.schema import RunConfig
from colatent.errors import UserError


def check_same_settings(folder: Path, config: RunConfig) -> None:
    """Refuse other streams, another seed, length or objective than those of the run in `folder`."""
    stored = load(folder / CONFIG).config
    if stored.streams.keys() != config.streams.keys():
        what = f"are {', '.join(config.streams)}, but this run was started with {', '.join(stored.streams)}"
        do = f"put them back, or begin another run with the weights of this one: init={folder} out=ANOTHER"
        raise UserError(what, where="streams", do=do)
    before, now = (dict(_fixed(each)) for each in (stored, config))
    for key, value in now.items():
        if before.get(key) != value:
            what = f"is {value!r}, but this run was started with {before.get(key)!r}"
            raise UserError(what, where=key, do="put it back, or start another run with another out=")


def with_solver(config: RunConfig, saved: Mapping[str, Checkpoint]) -> RunConfig:
    """The config of a resumed run with the solver that its model was saved with, where it states none: the default may
    have been another when the run began."""
    models = [one.document("model") for name, one in saved.items() if name in ("prior", "joint")]
    if not models or "solver" in config.sample.model_fields_set:
        return config
    sample = config.sample.model_copy(update={"solver": models[-1]["sample"]["solver"]})
    return config.model_copy(update={"sample": sample})


def _fixed(config: RunConfig) -> Iterator[tuple[str, Any]]:
    yield "seed", config.seed
    yield "data.length", config.data.length
    for name, stream in config.streams.items():
        yield f"streams.{name}.field", stream.field
    yield from _leaves(config.flow.model_dump(mode="json"), "flow")
    if "joint" in config.stages:
        yield from _leaves(config.joint.model_dump(mode="json", exclude={"codec_lr"}), "joint")
    for name, stage in config.stages.items():
        yield f"stages.{name}.kl", stage.kl
        yield f"stages.{name}.losses", stage.losses
        yield f"stages.{name}.draw", stage.draw
        yield f"stages.{name}.optimiser", stage.optimiser  # its moments are not the other's
        yield f"stages.{name}.ema > 0", stage.ema > 0  # an average cannot begin in the middle
    if config.joint.regime == "detached":  # the frozen tail is a share of the steps: it would begin elsewhere
        yield "stages.joint.steps", config.stages["joint"].steps


def _leaves(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", value
