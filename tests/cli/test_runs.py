"""`colatent runs`: the table, the comparison, and above all what cleaning leaves alone."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from pathlib import Path

import pytest

from colatent.checkpoint.folder import newest
from colatent.checkpoint.run import RunFolder
from colatent.cli.main import main
from plugins_for_tests.run_folders import made_run, name_of, record, save, scores, step_names


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished run and a stopped one."""
    folder = tmp_path / "runs"
    made_run(folder / "done")
    made_run(folder / "stopped", stages=("codec",), steps=33, finished=False)
    return folder


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path, status: int = 0) -> str:
    capsys.readouterr()
    assert main(["runs", *map(str, words)]) == status
    found = capsys.readouterr()
    return found.err if status else found.out


def test_the_list_says_where_each_run_stands(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder.create(runs / "stopped", "", resume=True):
        assert "running" in printed(capsys, "list", runs).splitlines()[2]
    head, done, stopped = printed(capsys, "list", runs).splitlines()
    assert head.split() == ["run", "stages", "loss", "last", "change", "size", "state"]
    assert done.split()[:6] == ["done", "codec", "60/60,", "prior", "60/60", "1.102"]
    assert (done.split()[-1], stopped.split()[-1]) == ("finished", "stopped")
    assert stopped.split()[:3] == ["stopped", "codec", "60/60"]  # a checkpoint knows of more than the metrics
    first, second = json.loads(printed(capsys, "list", runs, "--json"))
    assert first["stages"]["prior"] == {"done": 60, "asked": 60, "complete": True}
    assert first["size"] == sum(path.stat().st_size for path in (runs / "done").rglob("*") if path.is_file())
    assert second["state"] == "stopped"
    assert [one["run"] for one in json.loads(printed(capsys, "list", runs / "done", "--json"))] == [str(runs / "done")]


@pytest.mark.parametrize("values", [{"loss": math.nan}, {"grad_norm": math.inf}])
def test_a_run_that_a_step_ended_has_failed_until_it_goes_on(
    values: dict[str, float], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_run(runs / "a", stages=("prior",), records=[record("prior", 1), record("prior", 2, **values)], finished=False)
    made_run(runs / "b", stages=("prior",), records=[scores("prior", 1, odd=math.nan)], finished=False)
    assert [line.split()[-1] for line in printed(capsys, "list", runs).splitlines()[1:3]] == ["failed", "stopped"]
    with RunFolder.create(runs / "a", "", resume=True) as run:
        run.truncate_metrics(after_step=1, stage="prior")
    assert printed(capsys, "list", runs / "a").split()[-1] == "stopped"


def test_looking_leaves_no_trace(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def found() -> dict[str, tuple[int, bytes]]:
        files = (path for path in runs.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = found()
    printed(capsys, "list", runs)
    printed(capsys, "compare", runs / "done", runs / "stopped")
    printed(capsys, "clean", runs, "--dry-run")
    assert found() == before


def test_a_damaged_run_does_not_hide_the_others(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = runs / "done" / "run.json"
    state.write_text("{")
    for words in (["list"], ["clean", "--dry-run"]):
        assert main(["runs", *words, str(runs)]) == 0
        found = capsys.readouterr()
        assert found.err == f"colatent: {state}: is damaged; use a checkpoint inside the run folder\n"
        said = [line.split() for line in found.out.splitlines() if "done" in line]
        assert said == ([["done", "unreadable"]] if words == ["list"] else [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", '{"status": "running", "stages": [7], "done": []}'),
        ("run.json", '{"status": "running", "stages": ["../../x"], "done": []}'),
        ("run.json", '{"status": "running", "stages": ' + "9" * 5000 + "}"),
        ("run.json", "[" * 200_000),
        ("metrics.jsonl", None),
    ],
)
def test_an_odd_run_hides_no_other_and_ends_in_one_line(
    name: str, text: str | None, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = runs / "done" / name
    odd.unlink()
    odd.mkdir() if text is None else odd.write_text(text)
    found = json.loads(printed(capsys, "list", runs, "--json"))
    assert [one["state"] for one in found] == ["unreadable", "stopped"]
    lines = printed(capsys, "compare", runs / "stopped", runs / "done", status=2).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"colatent: {odd}: ")
    assert main(["report", str(runs / "done"), "--out", str(tmp_path / "page.html")]) == 2
    assert capsys.readouterr().err.splitlines() == lines
    assert not (tmp_path / "page.html").exists()
    (runs / "stopped" / ".tmp-run.json-1999999999-00000000").write_text("")
    assert "stopped" in printed(capsys, "clean", runs, "--dry-run")


@pytest.mark.parametrize("value", ["[" * 200_000, '{"stage": "codec", "step": 41, "loss": 1' + "0" * 400 + "}"])
def test_a_line_of_metrics_that_no_run_writes_is_passed_over(
    value: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = printed(capsys, "list", runs / "done").split()[:11]
    with open(runs / "done" / "metrics.jsonl", "a") as file:
        file.write(value + "\n")
    assert printed(capsys, "list", runs / "done").split()[:11] == before


def test_what_may_not_be_read_hides_no_other(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, opened = str(runs / "done" / "lock"), os.open

    def refused(path: str | Path, *rest: int, **named: int) -> int:
        if str(path) == lock:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), lock)
        return opened(path, *rest, **named)

    monkeypatch.setattr(os, "open", refused)  # modes do not keep root out
    for words in (["list"], ["clean", "--dry-run"]):
        assert main(["runs", *words, str(runs)]) == 0
        assert capsys.readouterr().err == f"colatent: {lock}: cannot be read: Permission denied\n"


def test_a_folder_without_runs_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "list", tmp_path) == f"no runs in {tmp_path}\n"
    assert printed(capsys, "clean", tmp_path) == "nothing to remove\n"
    line = f"colatent: {tmp_path / 'no'}: is not a folder; name the folder that holds your runs\n"
    assert printed(capsys, "list", tmp_path / "no", status=2) == line


def test_comparison(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_run(runs / "wide", prior__width=32, stages=("prior",))
    found = printed(capsys, "compare", runs / "done", runs / "wide")
    rows = [line.split() for line in found.splitlines()]
    assert ["setting", "done", "wide"] in rows
    assert ["prior.width", "16", "32"] in rows
    assert ["prior", "loss", "1.102", "1.102"] in rows
    assert ["codec", "loss", "1.102"] in rows
    assert "name" not in {row[0] for row in rows if row}
    assert "(none differs)" in printed(capsys, "compare", runs / "done", runs / "done")
    document = json.loads(printed(capsys, "compare", runs / "done", runs / "wide", "--json"))
    assert document["differences"]["prior.width"] == ["16", "32"]
    assert "two runs or more" in printed(capsys, "compare", runs / "done", status=2)


def test_a_comparison_tells_what_was_not_finite(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = [record("prior", 1), record("prior", 2, loss=math.nan)]
    made_run(runs / "broken", stages=("prior",), records=broken, finished=False)
    lines = printed(capsys, "compare", runs / "done", runs / "broken").splitlines()
    assert any(line.startswith("- broken: prior: not finite at step 2: loss; lower lr") for line in lines)


def test_cleaning_keeps_the_newest_of_each_stage(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = printed(capsys, "clean", runs, "--yes")
    for stage in ("codec", "prior"):
        assert step_names(runs / "done", stage) == [name_of(60)]
        assert f"{runs / 'done' / 'checkpoints' / stage / name_of(20)}" in gone
    assert step_names(runs / "stopped", "codec") == [name_of(step) for step in (20, 40, 60)]
    assert gone.splitlines()[-1].endswith(" freed")
    assert printed(capsys, "clean", runs, "--yes") == "nothing to remove\n"


def test_more_can_be_kept_and_nothing_is_done_dry(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, "clean", runs, "--dry-run", "--keep", "2")
    assert said.count("superseded") == 2
    assert "would be freed" in said
    assert step_names(runs / "done", "prior") == [name_of(step) for step in (20, 40, 60)]
    printed(capsys, "clean", runs, "--yes", "--keep", "2")
    assert step_names(runs / "done", "prior") == [name_of(step) for step in (40, 60)]


def test_cleaning_asks(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter("ny")
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: next(answers))
    assert main(["runs", "clean", str(runs)]) == 130
    assert len(step_names(runs / "done", "prior")) == 3
    assert main(["runs", "clean", str(runs)]) == 0
    assert len(step_names(runs / "done", "prior")) == 1


def test_a_run_that_is_under_way_is_not_touched(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "done" / ".tmp-run.json-1999999999-00000000").write_text("")
    with RunFolder.create(runs / "done", "", resume=True):
        assert printed(capsys, "clean", runs, "--yes") == "nothing to remove\n"
    assert printed(capsys, "clean", runs, "--yes") != "nothing to remove\n"


def test_a_run_that_begins_before_the_answer_is_not_touched(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[RunFolder] = []

    def answer(_: str) -> str:
        begun.append(RunFolder.create(runs / "done", "", resume=True))
        return "y"

    monkeypatch.setattr("click.termui.visible_prompt_func", answer)
    assert "0 B freed" in printed(capsys, "clean", runs)
    begun[0].close()
    assert len(step_names(runs / "done", "prior")) == 3


def test_the_newest_valid_one_stays_where_a_newer_is_damaged(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior = runs / "done" / "checkpoints" / "prior"
    damaged = prior / name_of(60) / "prior.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    printed(capsys, "clean", runs, "--yes")
    assert step_names(runs / "done", "prior") == [name_of(40), name_of(60)]
    found = newest(prior)
    assert found is not None
    assert found.step == 40


def test_what_crashes_left_goes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped = runs / "stopped"
    shutil.copytree(stopped / "checkpoints" / "codec" / name_of(40), stopped / "checkpoints" / "codec" / "aside")
    (stopped / "checkpoints" / "codec" / "aside").rename(stopped / "checkpoints" / "codec" / f"{name_of(40)}.old")
    left = stopped / "checkpoints" / "codec" / ".tmp-step-00000080-1999999999-0a0b0c0d"
    left.mkdir()
    (left / "prior.safetensors").write_bytes(b"half")
    mine = stopped / "samples" / f".tmp-samples-{os.getpid()}-0a0b0c0d"
    mine.mkdir()
    assert printed(capsys, "clean", stopped, "--yes").count("left by a crash") == 2
    assert step_names(stopped, "codec") == [name_of(step) for step in (20, 40, 60)]
    assert mine.exists()  # somebody is still at work there


def test_a_parked_checkpoint_stays_where_it_is_the_only_one(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec = runs / "stopped" / "checkpoints" / "codec"
    (codec / name_of(60)).rename(codec / f"{name_of(60)}.old")
    assert printed(capsys, "clean", runs / "stopped", "--yes") == "nothing to remove\n"


def test_links_are_neither_followed_nor_removed(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = made_run(tmp_path / "outside", stages=("codec",))
    os.symlink(outside, runs / "linked")
    shutil.rmtree(runs / "done" / "checkpoints" / "codec")
    os.symlink(outside / "checkpoints" / "codec", runs / "done" / "checkpoints" / "codec")
    prior = runs / "done" / "checkpoints" / "prior"
    os.symlink(save(tmp_path / "far", "prior", 80), prior / name_of(80))
    (outside / "kept").write_text("")
    for name, target in ((".tmp-a-1999999999-00000000", outside / "kept"), (".tmp-b-1999999999-00000000", outside)):
        os.symlink(target, runs / "done" / name)
    assert printed(capsys, "clean", runs, "--yes").count("superseded") == 2
    assert len(step_names(outside, "codec")) == 3
    assert (outside / "kept").exists()
    assert step_names(runs / "done", "prior") == [name_of(60), name_of(80)]  # 60 is the newest of its own


def test_what_another_run_starts_from_stays(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = runs / "done" / "checkpoints" / "prior" / name_of(20)
    made_run(runs / "heir", stages=("prior",), saved=(), init=str(start))
    printed(capsys, "clean", runs, "--yes")
    assert step_names(runs / "done", "prior") == [name_of(20), name_of(60)]


@pytest.mark.parametrize("before", ["runs/", "../HERE/runs/", "${oc.env:NOWHERE}/"])
def test_what_a_config_names_from_another_working_folder_stays(
    before: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = f"{before.replace('HERE', tmp_path.name)}done/checkpoints/prior/{name_of(20)}"
    made_run(runs / "heir", stages=("prior",), saved=(), init=start)
    monkeypatch.chdir("/")
    printed(capsys, "clean", runs, "--yes")
    assert step_names(runs / "done", "prior") == [name_of(20), name_of(60)]
