"""Steps whose loss is not finite: left out where a stage may, with no trace in the weights, and resumed to the bit."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from colatent.checkpoint.folder import Checkpoint
from colatent.errors import UserError
from colatent.evaluate.run_facts import FAILED, STOPPED, run_facts
from colatent.evaluate.run_findings import run_findings
from colatent.train.loop import Trainer
from colatent.train.optimiser import optimiser_tensors
from colatent.train.progress import Bar, Reporter
from colatent.train.skips import Skips
from colatent.train.spread import Passed, Ready, Spread
from colatent.train.world import World
from plugins_for_tests.runs import TEXT, assert_same_run, changed, last, metrics, run
from plugins_for_tests.stops import PowerCutError, StopsAt

TREE = changed(TEXT, stages__prior__save_every=1, stages__prior__log_every=4, stages__prior__skip=2)
SICK = (3, 6)
"""Steps of stage prior that are not finite here, as metrics count them."""


@pytest.fixture(scope="module", autouse=True)
def _sick() -> Iterator[None]:
    """Makes loss and gradients of some steps NaN."""
    gradients = Spread.gradients

    def poisoned(self: Spread, ready: Ready, step: int, **how: Any) -> Passed:
        passed = gradients(self, ready, step, **how)
        if self._stage.name != "prior" or step + 1 not in SICK:
            return passed
        for part in self._stage.parts.values():
            for one in part.module.parameters():
                one.grad = None if one.grad is None else one.grad * math.nan
        return replace(passed, loss=math.nan, sound=False)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Spread, "gradients", poisoned)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that skips both, and that nothing stops."""
    return run(TREE, tmp_path_factory.mktemp("whole") / "run")


def skipped(folder: Path) -> dict[int, int]:
    return {record["step"]: record["skipped"] for record in metrics(folder) if "skipped" in record}


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of weights, averages and moments."""
    groups = {name: part.module.state_dict() for name, part in trainer.parts.items()}
    groups |= {f"{name}.ema": average.shadow for name, average in trainer.averages.items()}
    groups["optimiser"] = optimiser_tensors(trainer.optimisers)
    return {f"{group}.{name}": one.clone() for group, named in groups.items() for name, one in named.items()}


def test_a_skipped_step_changes_nothing_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_step, same = Trainer.train_step, []

    def watched(self: Trainer) -> dict[str, float]:
        before, updates = state(self), [one.updates for one in self.averages.values()]
        found = train_step(self)
        after = state(self)
        kept = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in after)
        if self.stage.name == "prior" and kept and updates == [one.updates for one in self.averages.values()]:
            same.append(self.step)
        return found

    monkeypatch.setattr(Trainer, "train_step", watched)
    folder = run(TREE, tmp_path / "run")
    assert same == list(SICK)
    assert last(folder, "prior").step == 8
    assert all(bool(one.isfinite().all()) for one in last(folder, "prior").tensors("prior").values())


def test_the_steps_behind_it_are_those_of_their_number(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SICK", ())
    sound = run(TREE, whole.parent / "sound")
    rates = [{one["step"]: one["lr"] for one in metrics(folder) if "lr" in one} for folder in (whole, sound)]
    assert rates[0] == rates[1]
    drawn = [last(folder, "prior").document("state")["data"] for folder in (whole, sound)]
    assert drawn[0] == drawn[1]
    assert skipped(sound) == {}


def test_it_is_logged_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(TREE, tmp_path / "run", reporter=Reporter())
    assert skipped(folder) == {3: 1, 6: 2}
    (record,) = (one for one in metrics(folder) if (one["stage"], one["step"]) == ("prior", 3))
    assert record.keys() == {"stage", "step", "loss", "text/flow", "grad_norm", "skipped"}
    assert (record["loss"], record["grad_norm"]) == ("NaN", "NaN")
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(lines) == 2
    assert lines[0].startswith("stages.prior: loss nan (text/flow ")
    assert "gradient norm nan at step 3 on samples counting/" in lines[0]
    assert lines[1].endswith("skipped, 2 of at most 2")


@pytest.mark.parametrize(("limit", "step"), [(0, 3), (1, 6)])
def test_one_more_than_allowed_ends_the_run(limit: int, step: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"gradient norm nan at step {step} on samples .*; nothing was changed"):
        run(TREE, tmp_path / "run", f"stages.prior.skip={limit}")
    assert len(skipped(tmp_path / "run")) == limit
    assert [one["step"] for one in metrics(tmp_path / "run") if one.get("loss") == "NaN"][-1] == step
    facts = run_facts(tmp_path / "run")
    assert (facts.state, facts.history.stages["prior"].broken["loss"]) == (FAILED, step)
    assert facts.newest is not None
    assert facts.newest.step == step - 1


@pytest.mark.parametrize("step", [2, 3, 4, 6, 7])
def test_resumed_before_between_and_after(step: int, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        run(TREE, tmp_path / "run", reporter=StopsAt("prior", step, None))
    run(TREE, tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_the_count_goes_on_after_a_resume(tmp_path: Path) -> None:
    tree = changed(TREE, stages__prior__skip=1)
    with pytest.raises(PowerCutError):
        run(tree, tmp_path / "run", reporter=StopsAt("prior", 5, None))
    for limit in (1, 0):
        with pytest.raises(UserError, match="at step 6"):
            run(tree, tmp_path / "run", f"stages.prior.skip={limit}", resume=True)
    run(tree, tmp_path / "run", "stages.prior.skip=2", resume=True)
    assert skipped(tmp_path / "run") == {3: 1, 6: 2}


def test_a_checkpoint_without_a_count_has_skipped_none(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, counts = Checkpoint.document, []

    def older(self: Checkpoint, name: str) -> Any:
        found = document(self, name)
        return {key: one for key, one in found.items() if key != "skipped"} if name == "state" else found

    def watched(self: Trainer) -> Checkpoint | None:
        found = resume(self)
        counts.append(self.skips.count)
        return found

    resume = Trainer.resume
    monkeypatch.setattr(Trainer, "resume", watched)
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    run(TREE, folder, "stages.prior.steps=9", resume=True)
    monkeypatch.setattr(Checkpoint, "document", older)
    run(TREE, folder, "stages.prior.steps=10", resume=True)
    assert counts == [2, 0]


def test_a_run_that_went_on_has_not_failed(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        run(TREE, tmp_path / "run", reporter=StopsAt("prior", 7, None))
    facts = run_facts(tmp_path / "run")
    assert facts.state == STOPPED
    assert facts.history.stages["prior"].broken == {}
    assert facts.history.stages["prior"].logged["skipped"] == [(3, 1.0), (6, 2.0)]
    assert "not_finite" not in {one.name for one in run_findings(run_facts(whole))}


def test_what_passes_leave_in_buffers_is_put_back() -> None:
    module, logged = nn.BatchNorm1d(2), []
    skips = Skips(
        "codec",
        1,
        modules=[module],
        log=lambda step, record: logged.append((step, record)),
        reporter=Reporter(quiet=True),
        world=World(),
    )
    before = {name: one.clone() for name, one in module.state_dict().items()}
    skips.keep()
    module(torch.full((3, 2), math.inf))
    passed = Passed(loss=math.nan, parts={}, units=1.0, sound=False)
    assert skips.take(passed, 1.0, [], step=5)
    assert all(torch.equal(before[name], one) for name, one in module.state_dict().items())
    assert not skips.take(replace(passed, loss=1.0, sound=True), 1.0, [], step=6)
    assert [(step, record["skipped"]) for step, record in logged] == [(5, 1)]


def test_progress_shows_the_losses_that_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("prior", 3)
    for step, loss in enumerate((math.nan, 2.0, math.nan), start=1):
        bar.update(step, {"loss": loss, "tokens_per_second": 1.0})
    assert "loss 2.000" in capsys.readouterr().out
