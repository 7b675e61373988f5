"""`colatent report`: a page for a run in any state, alone or beside others, and what it may not give away."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from browser import needs_chromium, open_page
from colatent.checkpoint.run import METRICS, RunFolder
from colatent.cli.main import main
from colatent.errors import UserError
from colatent.evaluate.run_samples import EACH, LARGEST, STEPS
from colatent.evaluate.run_settings import settings
from plugins_for_tests.run_folders import made_run, record
from plugins_for_tests.runs import TEXT, changed, run

LINE, LINE_DARK = (36, 104, 188), (109, 163, 227)
"""The colour of the first line of a chart, on a light page and on a dark one: 68 % of saturation at the first hue."""


def page_of(folder: Path, *others: Path) -> str:
    assert main(["report", *map(str, (folder, *others))]) == 0
    return (folder / "run.html").read_text(encoding="utf-8")


def titles(page: str) -> list[str]:
    return re.findall(r"<h[1-4][^>]*>(.*?)</h", page)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained, and scored as it went."""
    often = {f"stages__{stage}__eval_every": 4 for stage in ("codec", "prior")}
    return run(changed(TEXT, **often, stages__prior__steps=20), tmp_path_factory.mktemp("trained") / "run")


def test_a_page_shows_a_run(trained: Path) -> None:
    page = page_of(trained)
    for title in ("Findings", "Facts", "Stage codec", "Stage prior", "Held-out loss at fixed t", "counting/text",
                  "reconstruction score", "flow", "learning rate", "gradient norm", "data units per second",
                  "Config"):  # fmt: skip
        assert title in titles(page)
    for shown in ("finished", "20/20 steps", "parameters", "fingerprint", "colatent 0", "t = 0.5", "config.yaml"):
        assert shown in page
    assert page.count("<svg") == (1 + 4 + 3) + (1 + 2 + 3)  # scores, losses, pace of each stage


@needs_chromium
@pytest.mark.parametrize(("dark", "line", "back"), [(False, LINE, (255, 255, 255)), (True, LINE_DARK, (17, 19, 22))])
def test_a_browser_shows_the_page(
    trained: Path, tmp_path: Path, dark: bool, line: tuple[int, int, int], back: tuple[int, int, int]
) -> None:
    page_of(trained)
    opened = open_page(trained / "run.html", tmp_path, dark=dark)
    assert (opened.console, opened.asked) == ([], [])
    assert opened.count(line) > 1000
    assert opened.count(back) > opened.pixels.size / 3 * 0.8


@needs_chromium
def test_the_browser_would_tell(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("oops")</script>')
    opened = open_page(tmp_path / "page.html", tmp_path, height=300)
    assert "oops" in opened.console[0]
    assert "http://127.0.0.1:9/x.png" in opened.asked
    assert opened.count(LINE) == 0


def test_runs_share_their_axes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made_run(tmp_path / "one")
    other = made_run(tmp_path / "other", stages=("prior",), prior__layers=3, stages__prior__lr=1.0)
    page = page_of(one, other)
    assert "one beside other" in page
    assert "What differs" in titles(page)
    chart = page[page.rindex("counting/text, t = 0.5") :]
    assert re.findall(r"<span[^>]*>(\w+) <b>", chart[: chart.index("<svg")]) == ["one", "other"]
    assert chart[: chart.index("</svg>")].count('class="line"') == 2
    capsys.readouterr()
    assert main(["report", str(one), str(other), "--json", "--out", str(tmp_path / "both.html")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["page"] == str(tmp_path / "both.html")
    assert [each["state"] for each in document["runs"]] == ["finished", "finished"]
    assert document["findings"] == {"one": [], "other": []}
    assert document["differences"]["prior.layers"] == ["2", "3"]
    assert document["differences"]["stages.prior.lr"] == ["0.003", "1.0"]
    assert "stages.prior.batch" not in document["differences"]
    assert document["runs"][1]["last"]["prior"]["lr"] == 1e-3


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one, other = (made_run(tmp_path / name / "run", stages=("codec",)) for name in "ab")
    assert f"{one} beside {other}" in page_of(one, other)


def test_runs_in_every_state_have_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "run", finished=False, saved=(20,), steps=33)
    with open(run / METRICS, "a", encoding="utf-8") as file:
        file.write('{"stage": "prior", "step": 34, "lo')
    page = page_of(run)
    assert "33/60 steps" in page
    line = "- run: the run stopped in stage codec at 33/60; its newest checkpoint is of step 20"
    assert line in capsys.readouterr().out
    with RunFolder.create(run, "", resume=True):
        assert "state running" in page_of(run)
        assert capsys.readouterr().out == f"report {run / 'run.html'}\n"
    shutil.rmtree(run / "checkpoints")
    (run / METRICS).unlink()
    page_of(run)
    assert "in stage codec at 0/60; nothing was saved" in capsys.readouterr().out


def test_a_run_that_only_began_has_a_page(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", yaml.safe_dump(TEXT)):
        pass
    assert titles(page_of(tmp_path / "run")) == ["run", "Findings", "Facts", "Config"]


def test_a_codec_alone_has_a_page(tmp_path: Path) -> None:
    page = page_of(made_run(tmp_path / "run", stages=("codec",)))
    assert "Stage codec" in titles(page)
    assert "Stage prior" not in titles(page)


def test_a_config_of_another_version_is_shown_as_it_is(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("codec",))
    (run / "config.yaml").write_text("was: different\nstages: {codec: {steps: 70}}\n")
    page = page_of(run)
    assert "was: different" in page
    assert "60/70" in page


def test_what_ended_a_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = [record("prior", 1), record("prior", 2, loss=math.nan)]
    page_of(made_run(tmp_path / "run", stages=("prior",), records=broken, finished=False))
    assert "- run: prior: not finite at step 2: loss; lower lr" in capsys.readouterr().out
    wild = changed(TEXT, stages__codec__lr=1e30)
    with pytest.raises(UserError, match="at step"):
        run(wild, tmp_path / "wild")
    page_of(tmp_path / "wild")
    assert "not finite at step" in capsys.readouterr().out


def test_surroundings_are_not_given_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    token = {"data__sources__counting__config__path": "${oc.env:SECRET}"}
    again = {"data__sources__again": "${data.sources.counting}"}  # a mapping that has the secret in it
    listed = {"data__sources__counting__config__paths": ["a", "${oc.env:SECRET}"]}
    other = made_run(tmp_path / "other")
    for number, one in enumerate((token, token | again, listed)):
        page = page_of(made_run(tmp_path / str(number), **one), other)
        assert "${oc.env:SECRET}" in page
        assert "hunter2" not in page


def test_a_value_that_yaml_takes_for_a_date_is_shown(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("codec",))
    (run / "config.yaml").write_text("name: 2024-01-31\nwas: different\n")
    assert settings(RunFolder.open(run))["name"] == '"2024-01-31"'


def sampled(folder: Path, step: int) -> Path:
    place = folder / "samples" / "prior" / f"step-{step:08d}"
    place.mkdir(parents=True)
    return place


def test_samples_are_shown_over_time(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("prior",))
    for step in range(1, 21):
        place = sampled(run, step)
        (place / "grid-0.png").write_bytes(b"\x89PNG")
        records = [{"text": f"<b>word {step}"}, {"prompt": "a line", "grid": "grid-0.png"}, {"text": "x"}]
        (place / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records) + '{"text": "to')
    page = page_of(run)
    steps = re.findall(r"<th>prior step (\d+)</th>", page)
    assert len(steps) == STEPS
    assert (steps[0], steps[-1]) == ("1", "20")
    assert "text: &lt;b&gt;word 20" in page
    assert page.count('src="data:image/png;base64,') == STEPS
    assert "prompt: a line" in page


def test_many_samples_of_a_step_are_cut(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("prior",))
    place = sampled(run, 5)
    for number in range(EACH + 3):
        (place / f"{number}.txt").write_text(f"sample {number}")
    assert page_of(run).count("<pre>sample ") == EACH


def test_records_may_hold_any_line_break_and_any_depth(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("prior",))
    text = json.dumps({"text": "one\u2028two\u0085three"}, ensure_ascii=False)
    (sampled(run, 5) / "samples.jsonl").write_text(f"{text}\n{'[' * 100_000}\n", encoding="utf-8")
    assert "text: one\u2028two\u0085three" in page_of(run)


def test_samples_lead_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("hunter2")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("hunter2")
    run = made_run(tmp_path / "run", stages=("prior",))
    place = sampled(run, 5)
    (place / "samples.jsonl").write_text(json.dumps({"grid": "../../../../secret.txt"}) + "\n")
    os.symlink(tmp_path / "secret.txt", place / "link.txt")
    os.symlink(tmp_path / "elsewhere", run / "samples" / "linked")
    (place / "page.html").write_text("hunter2")
    (place / "large.txt").write_text("hunter2" + LARGEST * " ")
    page = page_of(run)
    assert "secret.txt" in page
    assert "hunter2" not in page


def test_judgements_are_shown(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("prior",))
    assert "Judged" not in titles(page_of(run))
    found = {"figures": {"right": 0.5}, "bounds": {"right": [0.4, 0.6]}, "goals": {"right": 0.9}, "missed": ["right"]}
    (run / "report.json").write_text(json.dumps({"tasks": {"patterns": found}}))
    page = page_of(run)
    assert "patterns" in titles(page)
    assert "0.400–0.600" in page
    (run / "report.json").write_text('{"counting": {}, "samples": []}')  # that of the demo
    assert "Judged" not in titles(page_of(run))


@pytest.mark.parametrize(
    "found", [{"figures": {"right": 0.5}}, {"figures": {"right": "0.5"}, "bounds": {}, "goals": {}}, {"figures": 1}, []]
)
def test_figures_of_another_version_are_left_out_in_a_line(found: object, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("prior",))
    whole = {"figures": {"good": 0.25}, "bounds": {}, "goals": {}, "missed": []}
    (run / "report.json").write_text(json.dumps({"tasks": {"patterns": found, "others": whole}}))
    page = page_of(run)
    assert {"patterns", "others"} <= set(titles(page))
    assert page.count("Left out: report.json does not hold these figures") == 1
    assert "0.250" in page
    (run / "report.json").write_text(json.dumps({"tasks": ["patterns"]}))
    assert page_of(run).count("Left out: report.json does not hold these figures") == 1


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere"
    assert main(["report", str(nowhere)]) == 2
    line = f"colatent: {nowhere}: is not a run folder: it has no run.json; name the out= of a run\n"
    assert capsys.readouterr().err == line
    assert not nowhere.exists()
