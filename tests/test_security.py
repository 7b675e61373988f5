"""Whatever a stranger puts into a checkpoint, a shard or a config, it runs nothing; and files get the rights of others.

The bomb is a pickle that makes a file where it is opened. It is put in place of every file that is read, under names
that fit and with a manifest that fits, as a careful forger would.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from colatent.checkpoint.manifest import MANIFEST
from colatent.cli.main import main
from colatent.config.checks import validate
from colatent.data.dataset import Opener
from colatent.errors import UserError
from colatent.plugins import load_plugins
from data.shards_made import archive, opened
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.runs import TEXT, changed, last, rewritten, run

RAN = "ran"


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return (Path(RAN).touch, ())


def plain() -> bytes:
    return pickle.dumps(Bomb())


def saved_by_torch() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": Bomb()}, file)
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    return file.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {"pickle": plain, "torch": saved_by_torch, "numpy": array}
bombs = pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))


@pytest.fixture(autouse=True)
def _nothing_runs(in_tmp: Path):
    """The current folder is an empty one, and the bomb's file is not in it afterwards."""
    yield
    assert not Path(RAN).exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(TEXT, tmp_path_factory.mktemp("trained") / "run", "stages.prior.save_every=4")


@bombs
def test_the_bombs_go_off_where_they_are_unpickled(bomb: Callable[[], bytes]) -> None:
    data = bomb()
    if zipfile.is_zipfile(io.BytesIO(data)):
        torch.load(io.BytesIO(data), weights_only=False)
    elif data.startswith(b"\x93NUMPY"):
        np.load(io.BytesIO(data), allow_pickle=True)
    else:
        pickle.loads(data)
    Path(RAN).unlink()


def status_of(*arguments: object) -> int:
    return main([str(each) for each in arguments])


@bombs
def test_a_checkpoint_of_pickles_runs_nothing(bomb: Callable[[], bytes], trained: Path) -> None:
    folder, config = Path(shutil.copytree(trained, "run")), trained / "config.yaml"
    checkpoint = last(folder, "prior")
    refused = 0
    for name in [*checkpoint.manifest.files, MANIFEST]:
        paths = (checkpoint.path / name, checkpoint.path / MANIFEST)
        before = [path.read_bytes() for path in paths]
        paths[0].write_bytes(bomb())
        if name != MANIFEST:
            rewritten(checkpoint.path)
        statuses = [status_of("generate", checkpoint.path, "--max-new", "1")]
        statuses.append(status_of("train", config, f"out={folder}", "--resume", "--quiet"))
        assert set(statuses) <= {0, 2}, name
        refused += 2 in statuses
        for path, data in zip(paths, before, strict=True):
            path.write_bytes(data)
    assert refused > 6


@bombs
def test_what_else_lies_in_a_run_folder_runs_nothing(bomb: Callable[[], bytes], trained: Path) -> None:
    folder = Path(shutil.copytree(trained, "run"))
    for name in ("config.yaml", "run.json", "metrics.jsonl"):
        path = folder / name
        before = path.read_bytes()
        path.write_bytes(bomb())
        for command in (["report", folder], ["train", trained / "config.yaml", f"out={folder}", "--resume", "--quiet"]):
            assert status_of(*command) in (0, 2), (name, command)
        path.write_bytes(before)


@bombs
@pytest.mark.parametrize(("codec", "suffix"), [("text", "txt"), ("image", "png"), ("audio", "wav"), ("grid", "npy")])
def test_a_shard_of_pickles_runs_nothing(codec: str, suffix: str, bomb: Callable[[], bytes]) -> None:
    plugins = plugins_with_grid() if codec == "grid" else load_plugins()
    settings = {"height": 8, "width": 8, "downsample": 4} if codec == "image" else {}
    opener = Opener(
        codec=plugins.codec_class(codec, where=""),
        config=validate(plugins.codec_config(codec, where=""), settings, where=""),
    )
    archive(Path("some.tar"), [(f"{number}.{suffix}", bomb()) for number in range(4)])
    with pytest.warns(UserWarning, match="4 samples were found"):
        dataset = opened("some.tar", openers={"it": opener}, fields={"it": suffix})
    with pytest.raises(UserError, match=r"some\.tar"):
        dataset.sample(0, np.random.default_rng(0))


TOUCH = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{RAN}]]"


@pytest.mark.parametrize(
    "value",
    [
        TOUCH,
        f"!!python/object/new:os.system [touch {RAN}]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
        f"${{eval:__import__('pathlib').Path('{RAN}').touch()}}",
        f"${{oc.decode:'{TOUCH}'}}",
        f"${{oc.create:'{TOUCH}'}}",
        "${oc.env:HOME,${system:touch}}",
    ],
)
def test_a_config_runs_nothing(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = yaml.safe_dump(changed(TEXT, name="NAME"), sort_keys=False)
    Path("tag.yaml").write_text(text.replace("NAME", value))
    Path("plain.yaml").write_text(text)
    for command in (["tag.yaml"], ["plain.yaml", f"name={value}"]):
        assert status_of("train", *command, "out=run") in (1, 2), command
        assert not Path("run").exists()
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["os:system", "builtins.exec", "pathlib:Path", "../../evil"])
@pytest.mark.parametrize("key", ["streams__text__codec", "data__sources__counting__dataset"])
def test_names_in_a_config_are_those_of_plugins(key: str, name: str) -> None:
    Path("config.yaml").write_text(yaml.safe_dump(changed(TEXT, **{key: name})))
    assert status_of("train", "config.yaml", "out=run") == 2
    assert not Path("run").exists()


@bombs
def test_a_pickle_is_no_config(bomb: Callable[[], bytes]) -> None:
    Path("config.yaml").write_bytes(bomb())
    assert status_of("train", "config.yaml", "out=run") == 2


def test_rights_follow_the_umask(trained: Path) -> None:
    Path("lines.txt").write_text("a line of text\n" * 40)
    before, made = os.umask(0o027), Path("made")
    made.mkdir()
    try:
        short = ["stages.codec.steps=1", "stages.prior.steps=1"]
        assert status_of("train", trained / "config.yaml", f"out={made / 'run'}", *short, "--quiet") == 0
        assert status_of("generate", made / "run", "--max-new", "1", "--n", "2", "--out", made / "texts") == 0
        assert status_of("report", made / "run") == 0
        assert status_of("data", "pack", "lines.txt", made / "shards", "--quiet") == 0
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in made.rglob("*")}
    wrong = {str(path): oct(mode) for path, mode in modes.items() if mode != (0o750 if path.is_dir() else 0o640)}
    assert not wrong
    names = {path.name for path in modes}
    assert {"manifest.json", "metrics.jsonl", "run.json", "lock", "run.html", "shards.json", "000000.tar"} <= names
