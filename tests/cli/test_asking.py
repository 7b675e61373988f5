"""A mixed model asked on the command line: every order of given items, what is printed, what is written, and what is
refused before the work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colatent
from colatent import Given
from colatent.cli.asking import questions
from colatent.cli.main import main
from colatent.cli.samples import check_place
from colatent.errors import UserError
from colatent.generate.model import Model
from plugins_for_tests.grid import CONFIG, GridConfig, picture, plugins_with_grid
from plugins_for_tests.grid_codec import GridCodec
from plugins_for_tests.joint_runs import FrozenGrid
from plugins_for_tests.runs import changed, run
from plugins_for_tests.site import install

Asked = Callable[..., list[dict[str, Any]]]
PICTURE = picture("up", 1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of text and pictures that has seen a few samples, with a picture and a text beside it."""
    short = {"stages__codec__steps": 4, "stages__prior__steps": 4, "sample__steps": 2}
    made = tmp_path_factory.mktemp("asking")
    run(changed(CONFIG, **short), made / "run", plugins=plugins_with_grid())
    GridCodec(GridConfig()).write_item(PICTURE, made / "up")
    (made / "up.txt").write_bytes(b"up 1x2\r\n")
    return made


@pytest.fixture
def model(folder: Path) -> Model:
    return colatent.load(folder / "run", plugins=plugins_with_grid())


@pytest.fixture(autouse=True)
def grid_is_installed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin of pictures found as any installed one is, in the folder with the files."""
    install(tmp_path / "site", "grid", target="plugins_for_tests.grid")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(folder)


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Asked:
    """The samples that the command tells of with --json."""

    def run_it(*options: object) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["generate", "run", "--json", *map(str, options)]) == 0
        return json.loads(capsys.readouterr().out)["samples"]  # type: ignore[no-any-return]

    return run_it


GRID, TEXT = Given("grid", PICTURE), Given("text", "up 1x2")
ORDERS = {
    "picture": (["grid=up.npy"], [GRID]),
    "text then picture": (["text=up 1x2", "grid=up.npy"], [TEXT, GRID]),
    "picture then text": (["grid=up.npy", "text=up 1x2"], [GRID, TEXT]),
    "three in a row": (["grid=up.npy", "text=up 1x2", "grid=up.npy"], [GRID, TEXT, GRID]),
    "one group": (["text=up 1x2", "+grid=up.npy"], [TEXT, Given("grid", PICTURE, same_group=True)]),
    "text of a file": (["text=up.txt", "grid=up.npy"], [TEXT, GRID]),
}


@pytest.mark.parametrize("target", ["text", "grid"])
@pytest.mark.parametrize("order", ORDERS)
def test_given_items_stand_in_the_order_written(
    order: str, target: str, asked: Asked, model: Model, tmp_path: Path
) -> None:
    spelled, given = ORDERS[order]
    (sample,) = asked(*(part for one in spelled for part in ("--given", one)), "--target", target, "--out", tmp_path)
    expected = model.generate(given, target=target)
    if target == "grid":
        assert np.array_equal(np.load(tmp_path / sample["grid"]), expected)
    else:
        assert sample["text"] == expected
    assert sample["given"] == spelled
    assert (sample["prompt"], sample["sample"], sample["seed"]) == ("", 0, 0)


def test_the_orders_differ(model: Model) -> None:
    latents = {
        name: model.generate_many([given], target="text", guidance=1.0)[0][0].latents_LC[:4].tolist()
        for name, (_, given) in ORDERS.items()
        if name != "text of a file"
    }
    assert all(one != other for a, one in latents.items() for b, other in latents.items() if a != b)


def test_a_prompt_goes_on_or_comes_before(asked: Asked, model: Model, tmp_path: Path) -> None:
    begun, plain = (
        asked("--given", "grid=up.npy", "--prompt", "up", "--target", "text")[0]["text"],
        model.generate([GRID, Given("text", "up", ends=False)], target="text"),
    )
    assert begun == plain
    assert asked("--given", "grid=up.npy", "--prompt", "up")[0]["text"] == begun
    samples = asked("--given", "grid=up.npy", "--prompt", "on", "--prompt", "up", "--target", "grid", "--out", tmp_path)
    for text, sample in zip(("on", "up"), samples, strict=True):
        whole = model.generate([GRID, Given("text", text)], target="grid")
        assert np.array_equal(np.load(tmp_path / sample["grid"]), whole)


def test_a_prompt_alone_is_given_to_another_target(asked: Asked, model: Model, tmp_path: Path) -> None:
    (sample,) = asked("--prompt", "up 1x2", "--target", "grid", "--option", "width=1", "--out", tmp_path)
    expected = model.generate("up 1x2", target="grid", options={"width": 1})
    assert np.array_equal(np.load(tmp_path / sample["grid"]), expected)
    assert "given" not in sample


def test_files_sort_and_are_named_by_the_records(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompt", "up", "--prompt", "on", "--target", "grid", "--n", "11", "--steps", "1"]
    samples = asked(*options, "--out", tmp_path / "new" / "out")
    names = [sample["grid"] for sample in samples]
    assert names[:2] == ["grid-0000-00.npy", "grid-0000-01.npy"]
    assert names == sorted(names)
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == [*names, "samples.jsonl"]
    lines = (tmp_path / "new" / "out" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == samples
    assert main(["generate", "run", "--target", "grid", "--out", str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'one' / 'grid-0000-0.npy'}\n"


def test_text_is_printed_after_its_own_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["generate", "run", "--given", "grid=up.npy", "--prompt", "up", "--max-new", "7"]
    printed = []
    for more in ([], ["--stream"]):
        assert main([*options, *more]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].startswith("up")
    assert main(["generate", "run", "--given", "text=up", "--target", "text", "--json", "--stream"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["given"] == ["text=up"]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--target", "grid"], ["items of stream 'grid' cannot be printed", "add --out DIR"]),
        (["--target", "grid", "--json"], ["items of stream 'grid' cannot be printed", "add --out DIR"]),
        (["--target", "grid", "--stream"], ["--stream prints text, and items of stream 'grid' are files"]),
        (["--target", "grid", "--watch"], ["--watch prints text", "leave out --watch and add --out DIR"]),
        (["--given", "text=up"], ["--given: does not say what to generate", "add --target text|grid"]),
        (["--given", "text", "--target", "text"], ["'text' is not STREAM=VALUE"]),
        (["--given", "=up", "--target", "text"], ["'=up' is not STREAM=VALUE"]),
        (["--given", "image=x.png", "--target", "text"], ["--given: this model has no stream 'image'", "text, grid"]),
        (["--given", "grid=none.npy", "--target", "text"], ["none.npy: cannot be read; give a .npy file"]),
        (["--given", "grid=up.txt", "--target", "text"], ["up.txt: is no picture that can be read"]),
        (["--given", "+text=up", "--target", "text"], ["--given +text=up: has none before it", "leave out its +"]),
        (["--given", "text=up.npy", "--target", "text"], ["up.npy: is not UTF-8 text (byte 0x93 at offset 0)"]),
        (["--prompt", "up", "--target", "grid", "--out", "up.npy"], ["--out", "is a file"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_mistakes_are_told_before_the_work(
    options: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Model, "generate_many", None)
    monkeypatch.setattr(Model, "stream", None)
    assert main(["generate", "run", *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert [part for part in parts if part not in err] == [], err


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["generate", "run", "--prompt", "up", "--out", str(tmp_path)]
    (tmp_path / "notes").write_text("mine")
    assert main([*options, "--target", "grid"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for target in ("grid", "text"):
        assert main([*options, "--target", target]) == 2
        assert "is there already; name another folder with --out" in capsys.readouterr().err
    (tmp_path / "samples.jsonl").unlink()
    assert main([*options, "--target", "grid"]) == 2
    assert main([*options, "--target", "text"]) == 0
    assert {name: (tmp_path / name).read_bytes() for name in before if name != "samples.jsonl"} == {
        name: data for name, data in before.items() if name != "samples.jsonl"
    }


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = GridCodec.write_item, []

    def full(self: GridCodec, item: np.ndarray, path: Path) -> Path:
        if written:
            raise OSError(28, "No space left on device", str(path))
        written.append(write(self, item, path))
        return written[0]

    monkeypatch.setattr(GridCodec, "write_item", full)
    assert main(["generate", "run", "--target", "grid", "--n", "3", "--out", str(tmp_path / "out")]) == 2
    assert written
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    assert main(["generate", "run", "--target", "grid", "--n", "3", "--out", str(tmp_path / "out")]) == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_a_codec_that_reads_or_writes_nothing_is_named() -> None:
    frozen = FrozenGrid(GridConfig())
    with pytest.raises(UserError, match=r"'frozen' takes neither a file nor text: its codec has no read_item"):
        questions({"frozen": frozen}, given=["frozen=x"], prompts=(), target="frozen")
    with pytest.raises(UserError, match=r"'frozen' can be neither printed nor written: its codec has no write_item"):
        check_place(frozen, stream="frozen", out="here", live=None)


def test_the_only_stream_is_the_target() -> None:
    stream, (question,) = questions({"grid": GridCodec(GridConfig())}, given=(), prompts=(), target=None)
    assert (stream, question.prompt) == ("grid", "")
