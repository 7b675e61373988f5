"""What the settings of stages say together: which have an effect where, and what cannot go with what.

A setting without effect is refused, so that a config never claims what was not done. It is refused by its value, not by
its presence: an override on the command line can put a default back, but cannot take a key out of the file. The
functions know the settings by name only, since the models call them while they check.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

CODEC_TRAINS = ("joint", "interval", "scratch", "detached")
"""Regimes of stage joint in which the codecs learn."""
REGIMES_WITH = {
    "codec_lr": CODEC_TRAINS,
    "vae": CODEC_TRAINS,
    "entropy": CODEC_TRAINS,
    "reference": ("joint", "interval", "detached"),
    "interval": ("interval",),
    "frozen_tail": ("detached",),
}
"""Regimes in which a setting of `joint` does something; one that is not named does in all."""
STAGES_WITH = {
    "budget": ("prior", "joint"),
    "compile": ("prior", "joint"),
    "kl": ("codec",),
    "losses": ("codec", "joint"),
    "optimiser": ("prior", "joint"),
    "parallel": ("prior", "joint"),
    "recompute": ("prior", "joint"),
    "sample_every": ("prior", "joint"),
}
"""Stages in which a setting of a stage does something; one that is not named does in all."""
SCHEDULES_WITH = {"min_lr": ("cosine", "wsd"), "decay": ("wsd",)}
"""Schedules with which it does, likewise."""


def changed(settings: BaseModel) -> list[str]:
    """Keys whose value is not the default."""
    optional = {name: field for name, field in type(settings).model_fields.items() if not field.is_required()}
    defaults = {name: field.get_default(call_default_factory=True) for name, field in optional.items()}
    return [name for name, default in defaults.items() if getattr(settings, name) != default]


def check_regime(joint: Any) -> None:
    """Refuse settings of `joint` (a `JointConfig`) that its regime has no use for. Raises `ValueError`, as validators
    do, and so do the others."""
    if joint.regime == "scratch" and joint.reference:
        raise ValueError("reference has no meaning in regime scratch: there is no trained codec to refer to")
    for name in changed(joint):
        if joint.regime not in REGIMES_WITH.get(name, (joint.regime,)):
            raise ValueError(f"{name} has no effect in regime {joint.regime}: take it out")


def check_stages(stages: Mapping[Any, Any], joint: Any) -> None:
    """Refuse settings of `stages` (each a `StageConfig`) without effect, and stages that do not go together."""
    for name, stage in stages.items():
        if name != "codec" and not stage.steps:
            raise ValueError(f"stages.{name}.steps is 0, it must be greater than 0: only stage codec may have none")
        _check_size(name, stage)
        if stage.parallel == "fsdp" and stage.optimiser == "muon":
            raise ValueError(f"stages.{name}: muon needs whole matrices, and parallel fsdp cuts them: use one or other")
        if stage.parallel == "fsdp" and stage.compile:
            raise ValueError(
                f"stages.{name}: compile is not made for weights that parallel fsdp cuts: use one or other"
            )
        for key in changed(stage):
            if name not in STAGES_WITH.get(key, (name,)):
                raise ValueError(f"stages.{name}.{key} has no effect in stage {name}: take it out")
            if stage.schedule not in SCHEDULES_WITH.get(key, (stage.schedule,)):
                raise ValueError(f"stages.{name}.{key} has no effect with schedule {stage.schedule}: take it out")
    if "joint" in stages:
        _check_joint(stages, joint)
    elif changed(joint):
        raise ValueError(f"joint.{changed(joint)[0]} has no effect without stages.joint: add that stage or take it out")


def _check_size(name: str, stage: Any) -> None:
    """Refuse two rules for where a step ends, and more passes than a step can have samples."""
    if stage.budget is not None and "batch" in changed(stage):
        do = "take batch out (on the command line: put its default back)"
        raise ValueError(f"stages.{name}.batch is {stage.batch}, and budget decides how many samples a step has: {do}")
    if stage.budget is not None and stage.draw == "step":
        what = f"stages.{name}.budget has no meaning with draw: step, whose steps are of a number of samples"
        raise ValueError(f"{what}: set draw: sample, or give each source a batch")
    size = "batch" if stage.budget is None else "budget"
    if stage.accumulate > getattr(stage, size):
        what = f"stages.{name}.accumulate is {stage.accumulate}, more than its {size} ({getattr(stage, size)})"
        raise ValueError(what)


def check_batches(stages: Mapping[Any, Any], sources: Mapping[str, Any]) -> None:
    """Refuse batches of sources (each a `SourceConfig`) where no stage draws whole steps from one source."""
    own = [name for name, source in sources.items() if source.batch is not None]
    if own and all(stage.draw != "step" for stage in stages.values()):
        raise ValueError(f"data.sources.{own[0]}.batch has no effect: no stage has draw: step")


def check_cache(stages: Collection[Any], cache: str | None) -> None:
    """Refuse a latent cache where no stage takes latents from it: the others train the codecs that would make them."""
    if cache is not None and "prior" not in stages:
        raise ValueError("data.cache has no effect without stages.prior: take it out")


def _check_joint(stages: Mapping[Any, Any], joint: Any) -> None:
    if "prior" in stages:
        raise ValueError("stages.prior and stages.joint would each train a prior: use init to go on from another")
    if list(stages)[-1] != "joint":
        raise ValueError("stages.joint trains on codecs that are trained: put it after stages.codec")
    if joint.regime == "scratch" and "codec" in stages:
        raise ValueError("joint.regime scratch starts from an untrained codec: take stages.codec out")
    if joint.regime == "fixed" and "losses" in changed(stages["joint"]):
        raise ValueError("stages.joint.losses has no effect in joint.regime fixed: take it out")
    if joint.regime == "interval" and stages["joint"].steps <= joint.interval:
        raise ValueError(f"joint.interval {joint.interval} leaves the prior no turn in {stages['joint'].steps} steps")
    if joint.regime == "detached" and joint.frozen_tail and not stages["joint"].ema:
        raise ValueError("joint.regime detached ends on the codec's average: stages.joint.ema must not be 0")
