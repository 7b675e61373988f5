"""What the stages that train a prior refuse to begin over, and to go on with.

A prior learns the latents of certain codecs, at unit scale, and is worthless over others. Training for days on latents
that mean nothing, in silence, is what these checks are for.
"""

from __future__ import annotations

from collections.abc import Sequence

from colatent.checkpoint.codecs import check_same_codec
from colatent.checkpoint.folder import Checkpoint
from colatent.config.checks import check_unchanged, validate
from colatent.config.prior import PriorConfig
from colatent.config.regimes import CODEC_TRAINS
from colatent.errors import UserError
from colatent.latents.posterior import SCALE_RANGE, overall_std
from colatent.plugins.contract import Codec, TrainableCodec
from colatent.train.prepare import Run


def check_order(run: Run, stage: str) -> None:
    """Refuse a stage over codecs that nothing trains before it."""
    stages: list[str] = list(run.config.stages)
    if "codec" not in stages[: stages.index(stage)]:
        check_codecs_trained(run, stage)


def check_codecs_trained(run: Run, stage: str) -> None:
    """Refuse codecs that were never trained, and those that are off scale."""
    for stream, facts in run.facts.items():
        check_trained(stream, facts.trained, stage=stage)
        check_scale(stream, facts.std)


def check_trained(stream: str, trained: bool, *, stage: str) -> None:
    """A prior needs a trained codec."""
    if not trained:
        what = "its codec was never trained: its latents mean nothing to a prior"
        do = (
            f"put stages.codec before stages.{stage} (with 0 steps where it is frozen), "
            f"or set streams.{stream}.weights to a run that trained it"
        )
        raise UserError(what, where=f"streams.{stream}", do=do)


def check_scale(stream: str, std: Sequence[float]) -> None:
    """A prior needs latents at unit scale."""
    low, high = SCALE_RANGE
    overall = overall_std(std)
    if not low <= overall <= high:
        what = f"its latents are off scale: std {overall:.3g}, allowed {low} to {high}"
        do = "measure the scale again with stage codec, or change it where its config fixes it"
        raise UserError(what, where=f"streams.{stream}", do=do)


def check_resumed(checkpoint: Checkpoint, run: Run) -> None:
    """Refuse to go on from a checkpoint whose prior knows other codecs or was built in another way."""
    check_codecs(checkpoint, run)
    stored = validate(PriorConfig, checkpoint.document("model")["prior"], where="prior")
    check_unchanged(stored, run.config.prior, where="prior", do="put it back, or start a run of its own")


def check_codecs(checkpoint: Checkpoint, run: Run) -> None:
    """The prior in `checkpoint` must have been trained on the run's codecs."""
    remembered = checkpoint.document("model")["codecs"]
    for name, facts in run.facts.items():
        if name in remembered:
            known = facts.__class__(**remembered[name])
            check_same_codec(known, facts, stream=name, where=str(checkpoint.path))


def check_begin(run: Run) -> None:
    """Refuse codecs that the regime cannot begin with."""
    regime = run.config.joint.regime
    if regime in CODEC_TRAINS and not trained_codecs(run):
        what = f"is {regime}, but no codec of this run can be trained"
        raise UserError(what, where="joint.regime", do="use regime fixed")
    if regime != "scratch":
        check_order(run, "joint")
        return
    for name, facts in run.facts.items():
        if name not in trained_codecs(run):
            check_trained(name, facts.trained, stage="joint")
            check_scale(name, facts.std)
        elif facts.trained:
            what = "its codec is trained already, and joint.regime scratch starts from an untrained one"
            raise UserError(what, where=f"streams.{name}", do="use another regime, or leave out weights and init")


def trained_codecs(run: Run) -> dict[str, Codec]:
    """The codecs that the run's regime trains, by stream."""
    if run.config.joint.regime not in CODEC_TRAINS:
        return {}
    return {name: codec for name, codec in run.codecs.items() if isinstance(codec, TrainableCodec)}


def check_joint_resumed(checkpoint: Checkpoint, run: Run) -> None:
    """Refuse to go on over other codecs than this stage began with, with another prior, or past its end."""
    stored = checkpoint.document("joint")
    for name, facts in run.facts.items():
        if stored["began"].get(name) != facts.hash:
            what = f"the codec that stage joint began with for stream {name!r} is gone or was changed"
            raise UserError(what, where=str(checkpoint.path), do="put it back, or start a run of its own")
    before = validate(PriorConfig, checkpoint.document("model")["prior"], where="prior")
    check_unchanged(before, run.config.prior, where="prior", do="put it back, or start a run of its own")
    steps = run.config.stages["joint"].steps
    if stored["ended"] and steps > checkpoint.step:
        what = f"is {steps}, but this stage ended after {checkpoint.step} steps"
        raise UserError(what, where="stages.joint.steps", do="put it back, or start another run with init")
