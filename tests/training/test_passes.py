"""A step computed in several passes is the step computed in one: loss, parts and gradients."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from colatent.data.mixture import Drawn
from colatent.errors import UserError
from colatent.plugins.contract import Encoded
from colatent.train.codec_stage import CodecStage
from colatent.train.engine import Alone
from colatent.train.joint_stage import JointStage
from colatent.train.prior_stage import PriorStage
from colatent.train.spread import Passed, Spread
from colatent.train.stage import Stage
from colatent.train.world import World
from plugins_for_tests.grid import CONFIG, picture, plugins_with_grid
from plugins_for_tests.grid_codec import GridCodec
from plugins_for_tests.joint_runs import stage_of, tree_of
from plugins_for_tests.runs import TEXT, last, loss_of, metrics, run


def gradients(stage: Stage, *, passes: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Parts of the loss and gradients of the sum over passes; the shares of samples are unequal."""
    drawn = stage.run.sources.mixture(seed=0).take(7)  # type: ignore[attr-defined]
    named = [(f"{part}.{n}", p) for part, one in stage.parts.items() for n, p in one.module.named_parameters()]
    for _, parameter in named:
        parameter.grad = None
    loss, parts, _ = loss_of(stage, drawn, 0, passes=passes)
    loss.backward()
    return parts, {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


@pytest.fixture
def joint(tmp_path: Path) -> JointStage:
    """The flow loss alone reaches codecs here: their own losses draw from a generator for each pass."""
    return stage_of(tree_of("joint", joint={"regime": "joint", "vae": 0.0}), tmp_path)


@pytest.mark.parametrize("passes", [2, 3])
def test_of_the_flow_loss(joint: JointStage, passes: int) -> None:
    (parts, whole), (found, cut) = gradients(joint, passes=1), gradients(joint, passes=passes)
    for name in ("text/flow", "grid/flow"):
        assert found[name] == pytest.approx(parts[name], rel=1e-5)
    assert cut.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def some(count: int) -> list[Drawn]:
    """Samples whose captions end in the middle of a latent, or do not."""
    samples = [{"text": "abcdefg"[: number % 7], "grid": picture("up", 1, 1 + number % 3)} for number in range(count)]
    return [Drawn(source="paint", key=f"paint/{n}", epoch=0, sample=sample) for n, sample in enumerate(samples)]


def over(joint: JointStage, stage: str) -> Stage:
    """Stage joint itself, or stage codec over the same codecs, as if nothing had trained them."""
    if stage == "joint":
        return joint
    joint.run.facts = {name: replace(facts, trained=False) for name, facts in joint.run.facts.items()}
    return CodecStage(joint.run, joint.run.config.stages["codec"])


@pytest.mark.parametrize("stage", ["codec", "joint"])
def test_of_what_is_a_mean_over_latents(stage: str, tmp_path: Path) -> None:
    """Latents hold two tokens or one, so that passes with as many tokens differ in latents."""
    text = {"tokens_per_latent": 2, **CONFIG["streams"]["text"]["config"]}
    joint = stage_of(
        tree_of("joint", joint={"regime": "joint", "reference": 1.0}, streams__text__config=text), tmp_path
    )
    names = ["text/log_q", "grid/log_q", "text/reference", "grid/reference"]
    with torch.no_grad():
        for parameter in joint.codecs.parameters():  # away from what they are held to
            parameter += 0.1
    made = over(joint, stage)
    one, two = (loss_of(made, some(7), 0, passes=passes)[1] for passes in (1, 2))
    for name in names if stage == "joint" else ["text/kl", "grid/kl"]:
        assert two[name] == pytest.approx(one[name], rel=1e-5), name


@pytest.mark.parametrize(("stage", "term"), [("codec", "grid/kl"), ("joint", "grid/log_q")])
def test_of_items_that_hold_no_unit(stage: str, term: str, joint: JointStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow pictures hold none here: those of the second pass, then those of both."""
    made, plain = over(joint, stage), GridCodec._encode_one

    def hollow(codec: GridCodec, item: np.ndarray) -> Encoded:
        found = plain(codec, item)
        return found if item.shape[1] > 2 else replace(found, units_L=torch.zeros_like(found.units_L))

    monkeypatch.setattr(GridCodec, "_encode_one", hollow)
    wide, narrow = [some(6)[number] for number in (1, 4)], [some(6)[number] for number in (0, 3)]
    mixed = [one for pair in zip(wide, narrow, strict=True) for one in pair]
    parts = loss_of(made, mixed, 0, passes=2)[1]
    assert parts[term] == pytest.approx(loss_of(made, wide, 0)[1][term], rel=1e-5)
    for passes in (1, 2):
        loss, parts, _ = loss_of(made, narrow, 0, passes=passes)
        loss.backward()
        assert math.isfinite(float(loss.detach()))
        assert [name for name, value in parts.items() if name.startswith("grid/") and value] == []


def test_means_of_passes_would_be_another_loss(joint: JointStage) -> None:
    """The samples differ in how many rows count: a mean of means is off by more than rounding."""
    drawn = joint.run.sources.mixture(seed=0).take(7)
    parts = loss_of(joint, drawn, 0)[1]
    each = [loss_of(joint, drawn[number::2], 0)[1] for number in range(2)]
    assert abs(sum(one["text/flow"] for one in each) / 2 - parts["text/flow"]) > 1e-4


class Kept:
    """A tensor that a backward pass will need; `most` is the largest sum of their bytes that there has been at once."""

    now = most = 0

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, size = tensor, tensor.untyped_storage().nbytes()
        Kept.now += size
        Kept.most = max(Kept.most, Kept.now)
        weakref.finalize(self, Kept.let_go, size)

    @classmethod
    def let_go(cls, size: int) -> None:
        cls.now -= size


def step_in_passes(stage: JointStage, passes: int) -> tuple[Passed, dict[str, torch.Tensor], int]:
    """What the loop does: the losses of a step, its gradients, and the most that was kept for a backward pass."""
    config = stage.config.model_copy(update={"accumulate": passes})
    spread = Spread(stage, config, engine=Alone(), world=World(), device=torch.device("cpu"))
    named = [(f"{part}.{n}", p) for part, one in stage.parts.items() for n, p in one.module.named_parameters()]
    for _, parameter in named:
        parameter.grad = None
    Kept.now = Kept.most = 0
    with saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        ready = spread.prepare(stage.run.sources.mixture(seed=0).take(8), 0)
        passed = spread.gradients(ready, 0, meanwhile=lambda: None)
    return passed, {name: parameter.grad for name, parameter in named if parameter.grad is not None}, Kept.most


def test_only_one_pass_is_kept(joint: JointStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders' graphs too: each pass is encoded when its turn comes, to the same numbers as if all were held."""
    whole, four = step_in_passes(joint, 1), step_in_passes(joint, 4)
    assert four[2] < 0.4 * whole[2]
    prepare = joint.prepare

    def holding(drawn: Any, step: int, **more: Any) -> Any:
        with torch.enable_grad():
            return prepare(drawn, step, **more)

    with monkeypatch.context() as patched:
        patched.setattr(joint, "prepare", holding)
        held = step_in_passes(joint, 4)
    assert held[2] > 1.3 * four[2]
    assert held[0] == four[0]
    assert held[1].keys() == four[1].keys()
    assert all(torch.equal(held[1][name], gradient) for name, gradient in four[1].items())


def test_a_run_in_passes_follows_the_run_in_one(tmp_path: Path) -> None:
    """Both stages, over two modalities; text is masked, as by default."""
    one = run(CONFIG, tmp_path / "one", plugins=plugins_with_grid())
    cut = ("stages.codec.accumulate=3", "stages.prior.accumulate=3")
    three = run(CONFIG, tmp_path / "three", *cut, plugins=plugins_with_grid())
    pairs = list(zip(metrics(one), metrics(three), strict=True))
    assert any("text/flow" in record for record, _ in pairs)
    for record, other in pairs:
        for name, value in record.items():
            if isinstance(value, float):
                assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-5), (record["stage"], record["step"], name)
    assert last(three, "prior").step == last(one, "prior").step


def test_more_passes_than_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages\.prior\.accumulate is 9, more than its batch \(4\)"):
        run(TEXT, tmp_path / "run", "stages.prior.accumulate=9")


def test_the_prior_stage_counts_rows(joint: JointStage) -> None:
    """Counts of passes add up to the count of the whole."""
    stage = PriorStage.__new__(PriorStage)
    stage.run, stage.module, stage.window = joint.run, joint.prior, 0
    drawn = joint.run.sources.mixture(seed=0).take(7)
    whole = stage.prepare(drawn, 0, alone=True).counts
    some = [stage.prepare(drawn[number::2], 0, alone=False).counts for number in range(2)]
    assert {name: sum(one[name] for one in some) for name in whole} == whole
