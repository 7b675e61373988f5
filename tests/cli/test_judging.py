"""A run that is judged when it ends, a judgement that was interrupted, and `colatent eval run` at any time after."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import colatent.generate.model
import colatent.plugins
import colatent.train.run
from colatent.cli.main import main
from colatent.cli.train import suggestion
from colatent.config import RunConfig
from colatent.evaluate.tasks import Verdict
from plugins_for_tests.grid import CONFIG
from plugins_for_tests.grid_task import Patterns, plugins_with_task
from plugins_for_tests.runs import changed

TREE = changed(
    CONFIG, stages__codec__steps=4, stages__prior__steps=4, sample__steps=2, tasks={"patterns": {"count": 3}}
)


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    """The commands find the plugins of this test as if they were installed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (colatent.plugins, colatent.train.run, colatent.generate.model):
            monkeypatch.setattr(module, "load_plugins", plugins_with_task)
        yield


def config(folder: Path, tree: dict[str, object] = TREE) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained and judged by one command."""
    folder = tmp_path_factory.mktemp("judged")
    assert main(["train", config(folder), f"out={folder / 'run'}", "--quiet"]) == 0
    return folder / "run"


def figures(folder: Path) -> dict[str, float]:
    """What the report in a folder says."""
    found: dict[str, float] = json.loads((folder / "report.json").read_text())["tasks"]["patterns"]["figures"]
    return found


def test_a_run_ends_with_its_report(judged: Path) -> None:
    document = json.loads((judged / "report.json").read_text())
    assert document["checkpoint"]["name"] == "prior/step-00000004"
    assert document["settings"] == {"patterns": {"count": 3}}
    found = document["tasks"]["patterns"]
    assert found["figures"].keys() == {"right", "seed"}
    assert (found["goals"], found["missed"]) == ({"right": 2.0}, ["right"])
    page = (judged / "report.html").read_text()
    for shown in ("Pictures", "&lt;b&gt;not bold&lt;/b&gt;", "missed", "config.yaml", "data:image/png;base64,"):
        assert shown in page
    assert "<b>not bold" not in page


def test_resume_judges_only_what_was_not(judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(judged, tmp_path / "run")
    resume = ["train", config(tmp_path), f"out={run}", "--resume", "--quiet"]
    page = run / "report.html"
    page.write_text("kept")
    assert main(resume) == 0
    assert page.read_text() == "kept"
    (run / "report.json").unlink()  # as if it had been interrupted before it was written
    checkpoints = sorted((run / "checkpoints" / "prior").iterdir())
    assert main(resume) == 0
    assert "Pictures" in page.read_text()
    assert figures(run) == figures(judged)
    assert sorted((run / "checkpoints" / "prior").iterdir()) == checkpoints
    assert main([*resume, "tasks.patterns.count=1"]) == 0
    assert json.loads((run / "report.json").read_text())["settings"] == {"patterns": {"count": 1}}
    assert "report " in capsys.readouterr().out


def test_an_interrupted_judgement_leaves_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    command = ["train", config(tmp_path), f"out={tmp_path / 'run'}", "--quiet"]
    with monkeypatch.context() as patched:
        patched.setattr(Patterns, "judge", interrupted)
        assert main(command) == 130
    assert capsys.readouterr().err == "colatent: interrupted\n"
    assert not (tmp_path / "run" / "report.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(Patterns, "judge", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as ended:
            main([*command, "--resume"])
    assert ended.value.code == 75
    assert "stopped by SIGTERM; the same command with --resume goes on" in capsys.readouterr().out
    assert not (tmp_path / "run" / "report.json").exists()
    assert main([*command, "--resume"]) == 0
    assert (tmp_path / "run" / "report.json").exists()


def told(judge: object, judged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says where a task judges so."""
    monkeypatch.setattr(Patterns, "judge", judge)
    assert main(["eval", "run", str(judged), "--task", "patterns", "--out", str(judged / "bad"), "--quiet"]) != 0
    return capsys.readouterr().err


def test_a_task_that_gives_no_verdict_is_told_so(judged: Path, monkeypatch, capsys) -> None:
    line = "colatent: tasks.patterns: Patterns.judge gave dict, no Verdict; return a colatent.evaluate.tasks.Verdict\n"
    assert told(lambda *_, **__: {"right": 1.0}, judged, monkeypatch, capsys) == line


def test_a_figure_that_is_no_number_is_null_and_a_dash(judged: Path, monkeypatch, capsys) -> None:
    odd, bound = math.nan, math.inf
    verdict = Verdict(figures={"right": odd, "few": 0.5}, bounds={"few": (0.25, bound)}, goals={"right": 0.9})
    monkeypatch.setattr(Patterns, "judge", lambda *_, **__: verdict)
    out = judged / "odd"
    assert main(["eval", "run", str(judged), "--task", "patterns", "--out", str(out), "--quiet"]) == 0
    assert "right  —                     0.90  missed" in capsys.readouterr().out
    found = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)["tasks"]["patterns"]
    assert (found["figures"], found["bounds"]) == ({"right": None, "few": 0.5}, {"few": [0.25, None]})
    assert found["missed"] == ["right"]
    page = (out / "report.html").read_text()
    assert '<th>right</th><td class="number">—</td>' in page
    assert '<th>few</th><td class="number">0.500</td><td class="number">—</td>' in page


def test_an_error_within_a_task_names_it(judged: Path, monkeypatch, capsys) -> None:
    line = "colatent: internal error: ZeroDivisionError: division by zero, in task 'patterns'; rerun with --debug"
    assert told(lambda *_, **__: 1 / 0, judged, monkeypatch, capsys).startswith(line)


@pytest.mark.parametrize(
    ("segments", "line"),
    [
        (
            "[{stream: text, role: given}, {stream: image}]",
            "colatent generate r --given text=TEXT --target image --out made",
        ),
        ("[{stream: image, role: given}, {stream: text}]", "colatent generate r --given image=FILE --target text"),
        ("[{stream: text}, {stream: image}]", "colatent generate r --target text"),
        (
            "[{stream: text, role: given}, {stream: image, role: given, same_group: true}, {stream: text}]",
            "colatent generate r --given text=TEXT --given +image=FILE --target text",
        ),
        ("[{stream: grid, role: given}, {stream: text}]", "colatent.load('r').generate(...) in Python"),
        (None, "colatent generate r --target text"),
    ],
)
def test_training_ends_with_what_to_ask(segments: str | None, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = {
        "text": type("Text", (), {"spelled": None}),
        "image": type("Image", (), {"write_item": None}),
        "grid": object,
    }
    monkeypatch.setattr(colatent.plugins, "load_plugins", lambda: SimpleNamespace(codec_class=classes.__getitem__))
    tree = {
        "name": "r",
        "streams": {name: {"codec": name} for name in ("text", "image", "grid")},
        "data": {"sources": {"a": {"dataset": "any", "segments": segments and yaml.safe_load(segments)}}},
        "stages": {"prior": {"steps": 1}},
    }
    assert suggestion(RunConfig.model_validate(tree), Path("r")) == line
    alone = changed(tree, streams={"text": {"codec": "text"}})
    if segments is None:
        assert suggestion(RunConfig.model_validate(alone), Path("r")) == "colatent generate r"
        assert suggestion(RunConfig.model_validate(changed(alone, stages={"codec": {"steps": 1}})), Path("r")) is None


def test_a_finished_model_can_be_judged(judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (judged / "report.json").read_bytes()
    assert main(["eval", "run", str(judged), "--task", "patterns", "--seed", "7", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((judged / "judged" / "patterns" / "report.json").read_text())
    assert (document["settings"], document["seed"]) == ({"patterns": {"count": 3}}, 7)
    assert (judged / "report.json").read_bytes() == before
    step = shutil.copytree(judged / "checkpoints" / "prior" / "step-00000004", tmp_path / "step-00000004")
    assert main(["eval", "run", str(step), "--task", "patterns", "count=1", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert f"report {tmp_path / 'out' / 'report.html'}" in printed.out
    assert "right" in printed.out
    assert printed.err == "... patterns: pictures 3/3\n"
    assert "The run" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--task", "pattern"], "--task: no active plugin brings task 'pattern'; did you mean 'patterns'?"),
        (["--task", "patterns", "counts=2"], "task patterns: counts: unknown key; did you mean count?"),
        (
            ["--task", "patterns", "count=0"],
            "task patterns: count: is 0, must be greater than 0; change it or pass count=VALUE",
        ),
        (["--task", "patterns", "count"], "override 'count': is not KEY=VALUE"),
        ([], "Missing option '--task'"),
    ],
)
def test_mistakes_are_one_line(
    judged: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "run", str(judged), *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"colatent: {line}")
    assert len(printed.splitlines()) == 1


def test_a_wrong_task_is_told_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", config(tmp_path), f"out={tmp_path / 'run'}", "tasks.patterns.count=none"]) == 2
    assert "tasks.patterns.count" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
