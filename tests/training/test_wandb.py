"""Numbers at W&B: one run there for one here, whatever happens. A module of that name stands in for the package."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from colatent.checkpoint.run import RunFolder
from colatent.config import load
from colatent.errors import UserError
from plugins_for_tests.runs import TEXT, assert_same_run, metrics, run
from plugins_for_tests.stops import PowerCutError, StopsAt

STANDS_IN = '''
"""Writes down what it is asked for."""

calls = []


class Error(Exception):
    pass


class Run:
    def define_metric(self, name, step_metric):
        calls.append(("define_metric", {"name": name, "step_metric": step_metric}))

    def log(self, values):
        calls.append(("log", values))

    def finish(self, exit_code):
        calls.append(("finish", exit_code))


def init(**settings):
    if settings["project"] == "closed":
        raise Error("api_key not configured\\nmore of it")
    calls.append(("init", settings))
    return Run()
'''
PROJECT = "metrics.wandb=lab/words"


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(STANDS_IN)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    import wandb

    yield wandb
    del sys.modules["wandb"]


def named(calls: list[tuple[str, Any]], name: str) -> list[Any]:
    return [value for called, value in calls if called == name]


def test_a_run_goes_there_as_it_is_logged_here(wandb: Any, tmp_path: Path) -> None:
    folder = run(TEXT, tmp_path / "run", PROJECT)
    (begun,) = named(wandb.calls, "init")
    assert (begun["entity"], begun["project"], begun["name"]) == ("lab", "words", "words")
    assert begun["dir"] == str(folder)
    assert named(wandb.calls, "define_metric") == [
        {"name": f"{stage}/*", "step_metric": f"{stage}/step"} for stage in ("codec", "prior")
    ]
    told = {
        (next(iter(one)).split("/")[0], key, value) for one in named(wandb.calls, "log") for key, value in one.items()
    }
    steps = {(stage, step) for stage, key, step in told if key.endswith("/step")}
    records = metrics(folder)
    assert steps == {(record["stage"], record["step"]) for record in records}
    for record in records:
        stage = record["stage"]
        assert "loss" not in record or (stage, f"{stage}/train/loss", record["loss"]) in told
        for name, value in record.get("eval", {}).items():
            assert (stage, f"{stage}/heldout/{name}", value) in told
    assert wandb.calls[-1] == ("finish", 0)


def test_it_changes_nothing(wandb: Any, tmp_path: Path) -> None:
    assert_same_run(run(TEXT, tmp_path / "plain"), run(TEXT, tmp_path / "told", PROJECT))


def test_a_run_that_goes_on_is_the_same_there(wandb: Any, tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        run(TEXT, tmp_path / "run", PROJECT, reporter=StopsAt("prior", 5, None))
    assert wandb.calls[-1] == ("finish", 1)
    run(TEXT, tmp_path / "run", PROJECT, resume=True)
    before, after = named(wandb.calls, "init")
    assert before["id"] == after["id"]
    assert before["resume"] == after["resume"] == "allow"
    assert wandb.calls[-1] == ("finish", 0)
    other = run(TEXT, tmp_path / "other", PROJECT)
    assert json.loads((other / "wandb.json").read_text())["id"] != before["id"]


def test_no_secret_is_told(wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "words")
    run(TEXT, tmp_path / "run", "metrics.wandb=${oc.env:WHERE}")
    (begun,) = named(wandb.calls, "init")
    assert begun["project"] == "words"
    assert begun["config"]["metrics"]["wandb"] == "${oc.env:WHERE}"


def test_who_is_not_let_in_is_told_in_a_line(wandb: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^metrics\.wandb: W&B cannot be started: api_key not configured; log in"):
        run(TEXT, tmp_path / "run", "metrics.wandb=closed")
    run(TEXT, tmp_path / "run", PROJECT, resume=True)
    assert RunFolder.open(tmp_path / "run").state().status == "finished"


@pytest.mark.parametrize("left", [False, True], ids=["nothing", "a folder that W&B left"])
def test_where_it_is_not_installed_nothing_begins(left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(one for one in sys.path if not (Path(one) / "wandb").exists())])
    if left:
        (tmp_path / "wandb" / "run-1").mkdir(parents=True)
    with pytest.raises(UserError, match=r"metrics\.wandb: wandb is not installed; pip install 'colatent\[wandb\]'"):
        run(TEXT, tmp_path / "run", PROJECT)
    assert not (tmp_path / "run").exists()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)


def test_a_damaged_id_is_named(wandb: Any, tmp_path: Path) -> None:
    folder = run(TEXT, tmp_path / "run", PROJECT)
    (folder / "wandb.json").write_text("[]")
    with pytest.raises(UserError, match=r"wandb\.json: is damaged; remove it"):
        run(TEXT, folder, PROJECT, resume=True)


def test_a_project_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(TEXT))
    with pytest.raises(UserError, match=r"metrics\.wandb"):
        load(path, ["metrics.wandb=a/b/c"])
