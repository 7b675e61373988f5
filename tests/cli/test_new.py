"""`colatent plugins new`: what it writes is valid and trains as it is; what it cannot write leaves nothing behind."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from colatent.cli.main import main
from colatent.evaluate.tasks import build_tasks
from colatent.generate.model import load
from colatent.plugins import PluginSet, load_plugins
from colatent.plugins.loader import Candidate
from colatent.plugins.new.package import NewPackage, check_new, write_new
from colatent.plugins.registry import CodecEntry, read_registry
from colatent.testing import check_codec, check_dataset, check_task
from plugins_for_tests.runs import changed, metrics, run

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "examples" / "plugin-template"


@pytest.fixture
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packages that a test imports are not kept."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("colatent_"):
            monkeypatch.delitem(sys.modules, name)


def written(folder: Path) -> dict[str, str]:
    """The files in a folder, without what Python and pytest put there."""
    files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parent.name)
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in sorted(files)}


def plugins_with(new: NewPackage, folder: Path, monkeypatch: pytest.MonkeyPatch, *, text: bool = False) -> PluginSet:
    """The plugin in `folder` as if it was installed, by its own entry point; beside text where that is asked for."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, target),) = project["entry-points"]["colatent"].items()
    monkeypatch.syspath_prepend(folder)
    own = Candidate(name=name, distribution=project["name"], version="0.1.0", target=target)
    built_in = Candidate(name="text", distribution="colatent", version="1", target="colatent_text.plugin")
    return load_plugins([built_in, own] if text else [own])


def test_the_template_in_the_examples_is_what_the_command_writes(tmp_path: Path) -> None:
    write_new(NewPackage(name="signal", modality="signal"), tmp_path / "new")
    do = "write it again: colatent plugins new signal --modality signal examples/plugin-template"
    assert written(TEMPLATE) == written(tmp_path / "new"), do


@pytest.mark.usefixtures("_forgetful")
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_what_is_written_is_valid_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: int) -> None:
    new = NewPackage(name=f"heart-rate{axes}", modality="pulse", axes=axes)
    write_new(new, tmp_path / "new")
    found = plugins_with(new, tmp_path / "new", monkeypatch)
    results = check_codec(found, new.name) + check_dataset(found, f"{new.name}-waves")
    results += check_task(found, f"{new.name}-pace")
    assert [result for result in results if result.state == "failed"] == []
    tree = yaml.safe_load((tmp_path / "new" / "train.yaml").read_text(encoding="utf-8"))
    folder = run(changed(tree, stages__codec__steps=120, stages__prior__steps=3), tmp_path / "run", plugins=found)
    scores = [record["eval"] for record in metrics(folder) if record["stage"] == "codec" and "eval" in record]
    first, last = (score[f"{new.name}/reconstruction_score"] for score in (scores[0], scores[-1]))
    assert last > 0.5 > 2 * first


@pytest.mark.usefixtures("_forgetful")
@pytest.mark.parametrize("modality", ["pulse", "text"])
def test_the_mixed_config_that_is_written_trains_and_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    new = NewPackage(name=f"heart-{modality}", modality=modality)
    write_new(new, tmp_path / "new")
    found = plugins_with(new, tmp_path / "new", monkeypatch, text=True)
    tree = yaml.safe_load((tmp_path / "new" / "mixed.yaml").read_text(encoding="utf-8"))
    wanted = {name: {**settings, "samples": 2} for name, settings in tree.pop("tasks").items()}
    few = changed(tree, stages__codec__steps=3, stages__prior__steps=3, sample__steps=2)
    folder = run(few, tmp_path / "run", plugins=found)
    (task,) = build_tasks(wanted, found).values()
    model = load(folder, plugins=found)
    verdict = task.judge(model, run=None, seed=0, progress=lambda what, done, total: None)
    assert verdict.goals.keys() == verdict.bounds.keys() == {"text_to_waves", "waves_to_text"}
    assert verdict.figures["judge"] == 1.0
    item = model.codecs[new.name].example_batch(3)[2]
    (page,) = verdict.sections[0].parts
    assert page.rows[0][1][0].shown.media == model.codecs[new.name].show(item).media == "image/svg+xml"
    with pytest.raises(ValueError, match=r"broken\.npy: is no \.npy file of numbers; write one with numpy\.save"):
        model.codecs[new.name].read_item(tmp_path / "broken.npy")


@pytest.mark.usefixtures("_forgetful")
def test_the_written_judge_reads_real_waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = NewPackage(name="heart-beat", modality="pulse", axes=2)
    write_new(new, tmp_path / "new")
    found = plugins_with(new, tmp_path / "new", monkeypatch)
    data = found.dataset_class("heart-beat-waves")(found.dataset_config("heart-beat-waves")(), split="heldout")
    caption_of = importlib.import_module("colatent_heart_beat.task").caption_of
    samples = [data.sample(number, np.random.default_rng(number)) for number in range(50)]
    assert [caption_of(one["pulse"]) for one in samples] == [one["text"] for one in samples]
    assert len({one["text"] for one in samples}) == 2


@pytest.mark.usefixtures("_forgetful")
def test_a_codec_may_be_called_like_the_data_that_are_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = NewPackage(name="waves", modality="waves")
    write_new(new, tmp_path / "new")
    found = plugins_with(new, tmp_path / "new", monkeypatch)
    assert found.codec_config("waves")().latent_spec().channels == 2
    assert found.dataset_config("waves-waves")().size == 1000


def test_the_command_names_the_files(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "new", "depth", "--modality", "range", "--axes", "2", "far/away", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("files") == [str(Path("far/away") / path) for path in written(in_tmp / "far" / "away")]
    assert told == {
        "name": "depth",
        "modality": "range",
        "axes": 2,
        "distribution": "colatent-depth",
        "folder": "far/away",
    }
    assert main(["plugins", "new", "sonar", "--modality", "range", "sonar"]) == 0
    printed = capsys.readouterr().out
    assert f"sonar{os.sep}colatent_sonar{os.sep}codec.py\n" in printed
    assert printed.endswith("next: pip install -e sonar, then colatent plugins validate sonar\n")


def test_an_empty_current_folder_is_filled(in_tmp: Path) -> None:
    before = in_tmp.stat().st_ino
    assert main(["plugins", "new", "depth", "--modality", "range", "."]) == 0
    assert (in_tmp / "colatent_depth" / "codec.py").is_file()
    assert in_tmp.stat().st_ino == before
    assert not [path for path in in_tmp.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("Depth", "d"), "'Depth' cannot be the name of a package; use small letters and digits"),
        (("2d", "d"), "'2d' cannot be the name of a package"),
        (("a--b", "d"), "'a--b' cannot be the name of a package"),
        (("../up", "d"), "'../up' cannot be the name of a package"),
        (("null", "d"), "'null' is no name in a config: YAML reads it as a value; choose another name"),
        (("on", "d"), "'on' is no name in a config"),
        (("text", "d"), "'text' is taken: plugin 'text' of colatent "),
        (("gallery", "d"), "'gallery' is taken: plugin 'gallery' of colatent "),
        (("ema", "d"), "'ema' is taken: colatent uses it within checkpoints; choose another name"),
        (("forward", "d"), "'forward' is taken: torch uses it within modules, and so it cannot name a stream; choose"),
        (("depth", "full"), "full: is not empty; name a folder that is new or empty"),
        (("depth", "full/file"), "full/file: is a file; name a folder that is new or empty"),
        (("depth", "full/file/below"), "full/file/below: cannot be written: Not a directory; choose another folder"),
        (("depth", "d", "--axes", "4"), "Invalid value for '--axes': 4 is not in the range 1<=x<=3"),
        (("depth", "d", "--modality", "A b"), "'A b' cannot be the name of a modality; use small letters"),
    ],
)
def test_what_cannot_be_written_is_one_line(in_tmp: Path, capsys, arguments: tuple[str, ...], line: str) -> None:
    (in_tmp / "full").mkdir()
    (in_tmp / "full" / "file").write_text("mine")
    assert main(["plugins", "new", "--modality", "range", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"colatent: {line}")
    assert told.count("\n") == 1
    assert [path.name for path in in_tmp.rglob("*")] == ["full", "file"]
    assert (in_tmp / "full" / "file").read_text() == "mine"


def test_names_that_others_have_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_plugins([])
    check_new(NewPackage(name="depth", modality="range"), found)
    entry = CodecEntry(distribution="other", modality="range", axes=2, fields=("range",))
    pinned = replace(found, registry=replace(read_registry(), codecs={"depth": entry}))
    with pytest.raises(ValueError, match=r"^'depth' is taken: registry\.toml gives it to the package other; choose"):
        check_new(NewPackage(name="depth", modality="range"), pinned)
    (tmp_path / "colatent_far_away").mkdir()
    (tmp_path / "colatent_far_away" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^'far-away' is taken: there is a package colatent_far_away already"):
        check_new(NewPackage(name="far-away", modality="range"), found)


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_nothing(in_tmp: Path, capsys, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    write, left = Path.write_text, iter(range(4))

    def until_full(self: Path, *rest: object, **more: object) -> int:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        return write(self, *rest, **more)

    if there:
        (in_tmp / "d").mkdir()
    monkeypatch.setattr(Path, "write_text", until_full)
    assert main(["plugins", "new", "depth", "--modality", "range", "d"]) == 2
    assert capsys.readouterr().err == "colatent: d: cannot be written: No space left on device; choose another folder\n"
    assert list(in_tmp.rglob("*")) == ([in_tmp / "d"] if there else [])
