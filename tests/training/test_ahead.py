"""A step may be drawn and prepared while the one before is computed. That changes when, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from colatent.checkpoint.folder import newest, read_checkpoint
from colatent.data.mixture import Mixture
from colatent.errors import UserError
from colatent.train.ahead import Ahead
from colatent.train.prior_stage import PriorStage
from plugins_for_tests.runs import TEXT, changed, run

PRIOR = Path("checkpoints", "prior")
GONE = "the disk is gone"
Noted = list[tuple[str, int]]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    """Which steps were taken, and which of them looked at ahead."""
    found: Noted = []
    for name in ("take", "look"):
        monkeypatch.setattr(Ahead, name, _noting(getattr(Ahead, name), found))
    return found


def _noting(method: Callable[..., object], found: Noted) -> Callable[..., object]:
    def called(self: Ahead, step: int) -> object:
        found.append((method.__name__, step))
        return method(self, step)

    return called


def tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """All that the last checkpoint of stage prior holds."""
    last = newest(folder / PRIOR)
    assert last is not None
    for group in ("prior", "prior.ema", "optimiser"):
        yield from ((f"{group}/{name}", tensor) for name, tensor in last.tensors(group).items())


def test_only_the_prior_looks_ahead_and_never_past_its_last_step(tmp_path: Path, noted: Noted) -> None:
    run(changed(TEXT, stages__codec__steps=3, stages__prior__steps=3), tmp_path / "run")
    codec, prior = [("take", step) for step in range(3)], [("take", 0), ("look", 1), ("take", 1), ("look", 2)]
    assert noted == [*codec, *prior, ("take", 2)]


def test_codecs_that_train_are_asked_when_their_step_comes(tmp_path: Path, noted: Noted) -> None:
    joint = {**TEXT["stages"]["prior"], "steps": 3}
    tree = changed(TEXT, stages__codec__steps=2, stages__joint=joint, joint={"regime": "detached"})
    del tree["stages"]["prior"]
    run(tree, tmp_path / "run")
    assert all(word == "take" for word, _ in noted)
    noted.clear()
    run(changed(tree, joint={"regime": "fixed"}), tmp_path / "fixed")
    assert ("look", 2) in noted


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"data__workers": 1},
        {"stages__prior__accumulate": 2},
        {"stages__prior__budget": 48, "stages__prior__batch": 16},
    ],
    ids=str,
)
def test_a_run_is_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, int]) -> None:
    tree = changed(TEXT, stages__prior__save_every=4, **how)
    ahead = run(tree, tmp_path / "ahead")
    monkeypatch.setattr(PriorStage, "early", lambda self: False)
    plain = run(tree, tmp_path / "plain")
    found, wanted = dict(tensors(ahead)), dict(tensors(plain))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    one, other = (read_checkpoint(folder / PRIOR / "step-00000004") for folder in (ahead, plain))
    assert all(one.document(name) == other.document(name) for name in ("state", "model"))


def test_a_step_is_not_lost_by_the_data_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Mixture.take

    def failing(self: Mixture, count: int) -> object:
        if sum(self._drawn.values()) >= 4 * 6 and count == 4:
            raise UserError(GONE, where="counting", do="mend it")
        return take(self, count)

    monkeypatch.setattr(Mixture, "take", failing)
    with pytest.raises(UserError, match=GONE):
        run(changed(TEXT, stages__codec__steps=2, stages__prior__save_every=6), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines if line["stage"] == "prior") == 6
    last = newest(tmp_path / "run" / PRIOR)
    assert last is not None
    assert last.document("state") == {**last.document("state"), "step": 6, "data": {"drawn": {"counting": 24}}}
