"""A frozen encoder is made ready by one command: stage codec without steps measures its scale, and trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from colatent.checkpoint.codecs import read_facts
from colatent.errors import UserError
from plugins_for_tests import grid_codec
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.joint_runs import FrozenGrid
from plugins_for_tests.runs import changed, last, run

GRID = {"streams": {"grid": {"codec": "grid"}}, "name": "frozen", "prior": CONFIG["prior"], "sample": CONFIG["sample"]}
SOURCES = {"sources": {"pictures": {"dataset": "captions", "segments": [{"stream": "grid"}]}}}
PRIOR = {"steps": 3, "batch": 4, "warmup": 1, "ema": 0.0, "eval_every": 0}


def tree(**stages: Any) -> dict[str, Any]:
    return {**GRID, "data": SOURCES, "stages": stages}


@pytest.fixture
def _frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_codec, "GridCodec", FrozenGrid)


@pytest.mark.usefixtures("_frozen")
def test_one_command_measures_the_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from colatent.train.progress import Reporter

    folder = run(tree(codec={"steps": 0}), tmp_path / "run", plugins=plugins_with_grid(), reporter=Reporter())
    assert capsys.readouterr().out == "codec: nothing to train, only the scale of latents to measure\n"
    facts = read_facts(last(folder, "codec"), "grid")
    assert facts.trained
    assert torch.allclose(torch.tensor(facts.std), torch.ones(facts.channels), atol=0.05)


@pytest.mark.usefixtures("_frozen")
def test_a_prior_follows_in_the_same_run_or_in_another(tmp_path: Path) -> None:
    folder = run(tree(codec={"steps": 0}, prior=PRIOR), tmp_path / "run", plugins=plugins_with_grid())
    run(tree(codec={"steps": 0}, prior=PRIOR), folder, resume=True, plugins=plugins_with_grid())
    other = run({**tree(prior=PRIOR), "init": str(folder)}, tmp_path / "next", plugins=plugins_with_grid())
    facts = [
        read_facts(last(one, stage), "grid") for one, stage in ((folder, "codec"), (folder, "prior"), (other, "prior"))
    ]
    assert facts[0] == facts[1] == facts[2]
    with pytest.raises(UserError, match=r"^streams\.grid: .* stages\.codec before stages\.prior \(with 0 steps where"):
        run(tree(prior=PRIOR), tmp_path / "none", plugins=plugins_with_grid())


def test_whatever_is_to_be_trained_needs_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^stages\.codec\.steps: is 0, and the codec of stream 'grid' is there to be"):
        run(tree(codec={"steps": 0}), tmp_path / "run", plugins=plugins_with_grid())
    with pytest.raises(UserError, match=r"stages\.prior\.steps is 0, it must be greater"):
        run(changed(CONFIG, stages__prior__steps=0), tmp_path / "other", plugins=plugins_with_grid())
