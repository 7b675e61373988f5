"""Five kills of the many that `tests/measure_reliability.py` gives, and that a loss would be noticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from colatent.checkpoint.tensors import safetensors_chunks
from plugins_for_tests.runs import last, rewritten
from reliability.killing import STAGES, Killer, LostRunError, kept
from reliability.watched import EVERY, Place, train_at

SCRIPT = Path(__file__).parents[1] / "measure_reliability.py"


def test_five_kills_lose_nothing(tmp_path: Path) -> None:
    out, counts = (
        tmp_path / "facts.json",
        ["--kills", "4", "--cold", "1", "--aimed", "1", "--faults", "0", "--configs", "0"],
    )
    command = [sys.executable, str(SCRIPT), *counts, "--json", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(out.read_text())
    assert len(facts["kills"]) == 5
    assert facts["runs_ended_alike"] >= 1
    assert all(kill["lost"] <= max(EVERY.values()) for kill in facts["kills"])
    assert f"{facts['runs_ended_alike']} runs, all to the bit like the one that nothing stopped" in done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.warns(UserWarning, match="there is no run"):
        train_at(folder, Place())
    return folder


@pytest.fixture
def killer(whole: Path, tmp_path: Path) -> Killer:
    """One that only looks."""
    found = object.__new__(Killer)
    found.folder, found.whole = tmp_path, whole
    return found


def flip_a_weight(run: Path) -> None:
    path = last(run, "prior").path
    tensors = last(run, "prior").tensors("prior")
    name = min(tensors)
    tensors[name] = torch.nextafter(tensors[name], torch.tensor(9.0))
    (path / "prior.safetensors").write_bytes(b"".join(safetensors_chunks(tensors)))
    rewritten(path)


def drop_a_line(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [(flip_a_weight, r"stage prior ended otherwise: prior\.safetensors$"), (drop_a_line, "its metrics are others")],
)
def test_a_run_that_ended_otherwise_is_noticed(change, message: str, killer: Killer, tmp_path: Path) -> None:
    run = Path(shutil.copytree(killer.whole, tmp_path / "run"))
    killer._check_ended(run)
    change(run)
    with pytest.raises(LostRunError, match=message):
        killer._check_ended(run)


@pytest.mark.parametrize(
    ("step", "removed", "message"),
    [
        (8, ["step-00000008"], r"steps \[7\] of prior are there, step 8 was saved"),
        (8, ["step-00000007"], r"of prior only \[8\] are there"),
        (10, [], "2 steps of prior are lost"),
    ],
)
def test_a_kill_that_lost_something_is_noticed(
    step: int, removed: list[str], message: str, killer: Killer, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(killer.whole, tmp_path / "run"))
    place, known = Place(stage=2, step=8, saved=8), {"start": "warm", "aimed": False, "seconds": 1.0}
    before = {"codec": 8, "prior": 7}
    assert killer._look(run, place, before, set(), **known).lost == 0
    place.step = step
    for name in removed:
        shutil.rmtree(run / "checkpoints" / "prior" / name)
    with pytest.raises(LostRunError, match=message):
        killer._look(run, place, before, set(), **known)


def test_what_is_kept_is_what_holds(killer: Killer, tmp_path: Path) -> None:
    run = Path(shutil.copytree(killer.whole, tmp_path / "run"))
    assert [kept(run, stage) for stage in STAGES] == [8, 8]
    (last(run, "prior").path / "state.json").write_text("{")
    assert [kept(run, stage) for stage in STAGES] == [8, 7]
    assert kept(tmp_path / "none", "prior") == 0
