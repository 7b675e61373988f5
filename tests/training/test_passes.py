"""A step computed in several passes is the step computed in one: loss, parts and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from colatent.errors import UserError
from colatent.train.joint_stage import JointStage
from colatent.train.prior_stage import PriorStage
from colatent.train.stage import Stage
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.joint_runs import stage_of, tree_of
from plugins_for_tests.runs import TEXT, changed, last, loss_of, metrics, run


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


def test_means_of_passes_would_be_another_loss(joint: JointStage) -> None:
    """The samples differ in how many rows count: a mean of means is off by more than rounding."""
    drawn = joint.run.sources.mixture(seed=0).take(7)
    parts = loss_of(joint, drawn, 0)[1]
    each = [loss_of(joint, drawn[number::2], 0)[1] for number in range(2)]
    assert abs(sum(one["text/flow"] for one in each) / 2 - parts["text/flow"]) > 1e-4


def test_a_run_in_passes_follows_the_run_in_one(tmp_path: Path) -> None:
    """Both stages, over two modalities. Text masks are drawn for each pass, so its masking is off."""
    tree = changed(CONFIG, streams__text__config={**CONFIG["streams"]["text"]["config"], "mask_weight": 0.0})
    one = run(tree, tmp_path / "one", plugins=plugins_with_grid())
    cut = ("stages.codec.accumulate=3", "stages.prior.accumulate=3")
    three = run(tree, tmp_path / "three", *cut, plugins=plugins_with_grid())
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
    stage.run, stage.window = joint.run, 0
    drawn = joint.run.sources.mixture(seed=0).take(7)
    whole = stage.prepare(drawn, 0, alone=True).counts
    some = [stage.prepare(drawn[number::2], 0, alone=False).counts for number in range(2)]
    assert {name: sum(one[name] for one in some) for name in whole} == whole
