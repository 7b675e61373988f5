"""The whole path: a text is packed, a run trains on the shards, and stopped and resumed it is the run that was not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from colatent.cli.main import main
from plugins_for_tests.ranks import torchrun
from plugins_for_tests.runs import TEXT, assert_same_run, changed, last, metrics, run
from plugins_for_tests.stops import PowerCutError, StopsAt

STAGES = {"codec": {"steps": 5, "batch": 4, "save_every": 2}, "prior": {"steps": 5, "batch": 4, "save_every": 2}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed text of 60 lines."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "lines.txt").write_text("".join(f"line {i} of sixty, which is long enough\n" for i in range(60)))
    assert main(["data", "pack", str(folder / "lines.txt"), str(folder / "shards"), "--quiet"]) == 0
    return folder / "shards"


def tree_of(shards: Path) -> dict:
    source = {"dataset": "shards", "config": {"path": str(shards)}}
    return changed(TEXT, data__sources={"lines": source}, stages=STAGES)


def test_a_packed_text_trains_and_resumes_to_the_same(shards: Path, tmp_path: Path) -> None:
    tree = tree_of(shards)
    whole = run(tree, tmp_path / "whole")
    with pytest.raises(PowerCutError):
        run(tree, tmp_path / "cut", reporter=StopsAt("prior", 3, None))
    run(tree, tmp_path / "cut", resume=True)
    assert_same_run(whole, tmp_path / "cut")


def test_workers_change_nothing_of_a_run_nor_does_their_number_when_it_is_resumed(shards: Path, tmp_path: Path) -> None:
    tree = tree_of(shards)
    whole = run(tree, tmp_path / "whole")
    with pytest.raises(PowerCutError):
        run(tree, tmp_path / "cut", "data.workers=1", reporter=StopsAt("prior", 3, None))
    run(tree, tmp_path / "cut", resume=True)
    assert_same_run(whole, tmp_path / "cut")


def test_a_finished_run_is_scored_on_what_its_shards_hold_out(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tree_of(shards), tmp_path / "run")
    assert main(["eval", "likelihood", str(folder), "--samples", "1", "--steps", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_damage_beyond_the_budget_of_two_processes_together_ends_both(shards: Path, tmp_path: Path) -> None:
    """Each finds about half of it, which alone would be allowed."""
    broken = Path(shutil.copytree(shards, tmp_path / "broken"))
    archive = next(broken.glob("*.tar"))
    lines = re.sub(rb"(line \d?[05] of sixty, which is) long", rb"\1 LONG", archive.read_bytes())
    archive.write_bytes(lines)
    codec = run(
        changed(tree_of(shards), stages={"codec": STAGES["codec"]}), tmp_path / "codec"
    )  # reads all of its data
    prior = {**STAGES["prior"], "steps": 20, "save_every": 15, "log_every": 1}
    tree = changed(tree_of(broken), device="cpu", stages={"prior": prior}, streams__text__weights=str(codec))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(changed(tree, data__sources__lines__config__damaged=0.15)))
    process = torchrun("train", str(tmp_path / "run.yaml"), f"out={tmp_path / 'run'}", "--quiet")
    try:
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    counts = re.findall(r"colatent: .*broken: (\d+) of 60 samples are damaged, more than damaged=0\.15 allows", out)
    assert len(counts) == 2, out
    assert counts[0] == counts[1]
    assert last(tmp_path / "run", "prior").step == metrics(tmp_path / "run")[-1]["step"] == 15


def test_damage_beyond_the_budget_ends_a_run_in_one_line(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(shards, tmp_path / "broken"))
    archive = next(broken.glob("*.tar"))
    archive.write_bytes(archive.read_bytes().replace(b"which is long", b"which is LONG"))
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tree_of(broken)))
    assert main(["train", str(config), f"out={tmp_path / 'run'}", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"colatent: .*broken: 1 of 60 samples are damaged, more than damaged=0\.001 allows: 000000\.tar, sample \d{9}: "
        r"txt does not match its checksum; mend the data, or allow more\n",
        error,
    ), error
