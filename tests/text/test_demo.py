"""The demo end to end with a model that is far too small: everything is trained, scored, written and found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import colatent.generate.model
import colatent.plugins
import colatent.train.run
from colatent.cli.main import main
from colatent.config import load
from colatent.plugins import PluginSet
from colatent_text import demo, demo_score
from colatent_text.demo import config_path, run_demo
from colatent_text.demo_report import flow_table
from plugins_for_tests.grid import CONFIG
from plugins_for_tests.grid_task import plugins_with_task
from plugins_for_tests.runs import changed

TASKS = {"patterns": {"count": 1}}

TINY = (
    "streams.text.config.width=32",
    "streams.text.config.heads=2",
    "streams.text.config.encoder_layers=1",
    "streams.text.config.decoder_layers=1",
    "streams.text.config.tokenizer.vocab=300",
    "prior.layers=1",
    "prior.width=32",
    "prior.heads=2",
    "stages.codec.steps=12",
    "stages.prior.steps=4",
    "stages.codec.batch=4",
    "stages.prior.batch=4",
    "sample.steps=2",
)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_score, "SAMPLES", 16)
    monkeypatch.setattr(demo_score, "NGRAM_WINDOWS", 20)


def test_the_demo_trains_scores_and_is_found_again(
    few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    report = run_demo(out, (*TINY, "seed=3"))
    printed = capsys.readouterr().out
    assert set(report["reconstruction"]) == {"names", "counting"}
    assert len(report["counting"]["by_residue"]) == report["block"]
    assert len(report["samples"]) == 10
    assert report["seed"] == 3
    for source in ("names", "counting"):
        assert list(report["flow_loss"][source]) == ["0.1", "0.3", "0.5", "0.7", "0.9"]
    assert "5-gram" in printed
    assert "ten samples" in printed
    for file in ("curves.png", "report.md", "report.json", "samples/names.jsonl", "samples/counting.jsonl"):
        assert (out / file).stat().st_size > 0
    before = (out / "metrics.jsonl").read_bytes()
    assert main(["demo", "--out", str(out)]) == 0
    again = capsys.readouterr().out
    assert "found the finished run" in again
    assert "new samples" in again
    assert (out / "metrics.jsonl").read_bytes() == before
    assert json.loads((out / "report.json").read_text())["counting"] == report["counting"]


def test_the_demo_is_scored_on_what_its_own_config_held_out() -> None:
    overrides = ["data.sources.names.config.heldout=100", "data.sources.counting.config.stretch=30", "seed=5"]
    material = demo_score.Material.of(load(config_path(), overrides).config)
    assert (material.seed, material.names.heldout) == (5, 100)
    assert [len(run) for run in material.counting.ranges().heldout] == [30] * 5
    assert len(material.datasets("heldout")["names"]) == 100


def test_flow_table_takes_the_first_and_the_last_evaluation() -> None:
    metrics = [
        {"stage": "codec", "step": 0, "eval": {"text/score": 0.1}},
        *({"stage": "prior", "step": n, "eval": {"names/text/t=0.1": 2.0 - n}} for n in range(2)),
        {"stage": "prior", "step": 1, "loss": 1.0},
    ]
    assert flow_table(metrics) == {"names": {"0.1": (2.0, 1.0)}}


def test_a_demo_keeps_out_of_other_runs(few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    run_demo(out, TINY)
    capsys.readouterr()
    assert main(["demo", "--out", str(out), "--set", "seed=3"]) == 2
    assert "--set would have no effect" in capsys.readouterr().err
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("name: demo", "name: plays"))
    assert main(["demo", "--out", str(out)]) == 2
    assert "holds the run 'plays'" in capsys.readouterr().err


def test_all_adds_what_tasks_demonstrate(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "pictures.yaml"
    config.write_text(yaml.safe_dump(changed(CONFIG, stages__codec__steps=2, stages__prior__steps=2, tasks=TASKS)))
    for module in (colatent.plugins, colatent.train.run, colatent.generate.model):
        monkeypatch.setattr(module, "load_plugins", plugins_with_task)
    monkeypatch.setattr(PluginSet, "demos", lambda found: {"patterns": config})
    monkeypatch.setattr(demo, "run_demo", lambda out, overrides: None)
    command = ["demo", "--all", "--out", str(tmp_path / "demo")]
    assert main(command) == 0
    report = tmp_path / "demo-patterns" / "report.html"
    before = report.stat()
    assert f"report  {report}" in capsys.readouterr().out
    assert main(command) == 0
    assert "going on with the demonstration 'patterns'" in capsys.readouterr().out
    assert report.stat() == before
