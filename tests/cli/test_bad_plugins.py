"""A modality whose plugin is not there, is broken or lacks a package, and latents whose width has changed: one line,
exit status 2, and every run folder as it was."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from colatent.checkpoint.manifest import MANIFEST
from colatent.cli.main import main
from plugins_for_tests.grid import CONFIG
from plugins_for_tests.runs import TEXT, changed, last, run
from plugins_for_tests.site import install

Complaint = Callable[..., str]
SHORT = {"steps": 2, "batch": 4, "warmup": 0, "ema": 0.9, "eval_every": 0}
CAPTIONS = {"dataset": "captions", "segments": [{"stream": "text"}]}
TREE = changed(CONFIG, stages={"codec": SHORT, "prior": SHORT})

REQUIRES = "Requires-Dist: numpy\nProvides-Extra: nose\nRequires-Dist: no-such-nose>=2; extra == 'nose'\n"
DECLARES = """
from colatent.plugins import CodecInfo, hookimpl
{top}

@hookimpl
def colatent_codecs():
    return [CodecInfo(name="smell", modality="smell", axes=1, fields=("smell",),
                      factory="{factory}", config="smells_plugin:Config")]

def Config(): ...
"""
CONFIG_CLASS = """
from colatent.config.schema import Settings
from colatent.plugins import LatentSpec

class Config(Settings):
    def latent_spec(self):
        return LatentSpec(channels=1, block=None, units_per_latent=1.0)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages are installed, in which pictures are."""
    folder = tmp_path / "site"
    install(folder, "grid", target="plugins_for_tests.grid")
    monkeypatch.syspath_prepend(str(folder))
    for name in ("smells_plugin", "smells_codec"):  # what another test imported under these names
        sys.modules.pop(name, None)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of text and pictures, under the plugins that `site` has."""
    folder = tmp_path_factory.mktemp("made")
    install(folder / "site", "grid", target="plugins_for_tests.grid")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder / "site"))
        return run(TREE, folder / "run")


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Runs `colatent train` on a config, which must fail, and gives its one line."""

    def run_it(tree: dict[str, Any], *arguments: object) -> str:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        assert main(["train", str(tmp_path / "config.yaml"), "--quiet", *map(str, arguments)]) == 2
        return one_line(capsys)

    return run_it


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("colatent: ")
    assert "Traceback" not in printed.err + printed.out
    return printed.err.strip()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


# Plugins.


def test_a_plugin_that_is_not_installed(kept: Path, complaint: Complaint, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(kept)
    line = complaint(TREE, f"out={kept}", "--resume")
    assert "streams.grid.codec: no active plugin brings codec 'grid'; there are: " in line
    assert main(["generate", str(kept)]) == 2
    assert "stream grid: no active plugin brings codec 'grid'; there are: " in one_line(capsys)
    assert contents(kept) == before


BROKEN = {
    "imports a package": (
        DECLARES.format(top="import no_such_nose", factory="smells_plugin:Codec"),
        r"plugin 'smells' of smells 1.0 is broken (import failed: ModuleNotFoundError: No module named 'no_such_nose')",
    ),
    "imports a package in the codec's module": (
        DECLARES.format(top="", factory="smells_codec:Codec") + CONFIG_CLASS,
        "codec 'smell' of plugin 'smells' of smells 1.0: needs the module 'no_such_nose', which is not installed",
    ),
    "imports a package when it is built": (
        DECLARES.format(top="", factory="smells_plugin:Codec")
        + CONFIG_CLASS
        + "class Codec:\n    def __init__(self, config):\n        import no_such_nose\n",
        "colatent: needs the module 'no_such_nose', which is not installed",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_plugin_that_lacks_a_package(how: str, site: Path, kept: Path, complaint: Complaint) -> None:
    code, expected = BROKEN[how]
    install(site, "smells", code=code, requires=REQUIRES)
    (site / "smells_codec.py").write_text("import no_such_nose.inside\n")
    before = contents(kept)
    names = {"dataset": "cameras", "config": {"names": ["smell", "right"]}}
    tree = changed(TREE, streams__smell={"codec": "smell"}, data__sources__smells=names)
    for arguments in ([f"out={kept.parent / 'new'}"], [f"out={kept.parent / 'new'}", f"init={kept}"]):
        line = complaint(tree, *arguments)
        assert expected in line
        assert line.endswith("; pip install 'smells[nose]'")
        assert not (kept.parent / "new").exists()
    assert contents(kept) == before


def test_a_missing_package_that_no_extra_names(site: Path, complaint: Complaint) -> None:
    code, _ = BROKEN["imports a package in the codec's module"]
    install(site, "smells", code=code)
    (site / "smells_codec.py").write_text("import no_such_nose\n")
    names = {"dataset": "cameras", "config": {"names": ["smell", "right"]}}
    line = complaint(changed(TREE, streams__smell={"codec": "smell"}, data__sources__smells=names))
    assert line.endswith("which is not installed; pip install no_such_nose")


def test_a_module_of_the_plugin_s_own_that_is_not_there(site: Path, complaint: Complaint) -> None:
    code, _ = BROKEN["imports a package in the codec's module"]
    install(site, "smells", code=code.replace("smells_codec", "smells_kodec"))
    names = {"dataset": "cameras", "config": {"names": ["smell", "right"]}}
    line = complaint(changed(TREE, streams__smell={"codec": "smell"}, data__sources__smells=names))
    assert "cannot import 'smells_kodec' (ModuleNotFoundError: No module named 'smells_kodec')" in line
    assert "pip install" not in line


CODEC = """
import torch

class Codec(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def latent_spec(self):
        return self.config.latent_spec()

    def encode(self, items, *, generator=None):
        return []
"""


@pytest.mark.parametrize(
    ("was", "becomes", "line"),
    [
        ("super().__init__()", "raise OSError('no nose')", "fails to be built (OSError: no nose); tell who wrote it"),
        ("torch.nn.Module", "object", "is no torch.nn.Module; see colatent plugins validate smell"),
        ("self.config.latent_spec()", "1 // 0", "fails to describe its latents (ZeroDivisionError: "),
        ("return []", "raise KeyError('rose')", "fails to encode (KeyError: 'rose'); tell who wrote it"),
    ],
)
def test_a_codec_that_fails(was: str, becomes: str, line: str, site: Path, complaint: Complaint) -> None:
    assert was in CODEC
    code = DECLARES.format(top="", factory="smells_plugin:Codec") + CONFIG_CLASS + CODEC.replace(was, becomes)
    install(site, "smells", code=code)
    names = {"dataset": "cameras", "config": {"names": ["smell", "right"]}}
    out = site / "run"
    told = complaint(changed(TREE, streams__smell={"codec": "smell"}, data__sources__smells=names), f"out={out}")
    assert f"codec 'smell' of plugin 'smells' of smells 1.0 {line}" in told
    assert not out.exists()


def test_a_stream_named_like_a_part_of_torch_s_modules(site: Path, complaint: Complaint) -> None:
    tree = changed(TREE, streams__forward={**TREE["streams"]["grid"], "field": "grid"})
    line = complaint(tree, f"out={site / 'run'}")
    assert "streams.forward: torch uses this name within modules; choose another name" in line
    assert not (site / "run").exists()


# Streams.


@pytest.mark.parametrize("now", ["text, grid, right", "text"])
def test_a_run_goes_on_with_the_streams_that_it_has(now: str, site: Path, kept: Path, complaint: Complaint) -> None:
    del site
    streams = {name: {"codec": "grid", "field": name, **TREE["streams"].get(name, {})} for name in now.split(", ")}
    cameras = {"dataset": "cameras", "config": {"names": ["right", "left"]}}
    sources = {**TREE["data"]["sources"], "cameras": cameras} if "right" in streams else {"captions": CAPTIONS}
    before, tree = contents(kept), {**TREE, "streams": streams, "data": {**TREE["data"], "sources": sources}}
    line = complaint(tree, f"out={kept}", "--resume")
    assert f"streams: are {now}, but this run was started with text, grid; put them back, or begin another run" in line
    assert contents(kept) == before


# Widths.


@pytest.mark.parametrize(
    ("stream", "was", "arguments"),
    [
        ("grid", 3, ["--resume"]),
        ("text", 8, ["--resume"]),
        ("grid", 3, ["init={kept}", "out={new}"]),
        ("text", 8, ["streams.text.weights={kept}", "out={new}"]),
        ("grid", 3, ["streams.grid.weights={kept}", "out={new}"]),
    ],
)
def test_latents_of_another_width_than_in_the_checkpoint(
    stream: str, was: int, arguments: list[str], site: Path, kept: Path, complaint: Complaint
) -> None:
    before, new = contents(kept), kept.parent / "new"
    said = [one.format(kept=kept, new=new) for one in arguments]
    line = complaint(TREE, f"out={kept}", f"streams.{stream}.config.channels=5", *said)
    assert f"streams.{stream}.config.channels: is 5, this was built with {was}; put it back, or train another" in line
    assert contents(kept) == before
    assert not new.exists()


def test_a_prior_over_latents_of_another_width(site: Path, kept: Path, complaint: Complaint, tmp_path: Path) -> None:
    codec_only = changed(TEXT, stages={"codec": SHORT}, streams__text__config__channels=5)
    wide = run(codec_only, tmp_path / "wide")
    before, new = contents(kept), tmp_path / "new"
    tree = changed(TREE, streams__text={"codec": "text", "weights": str(wide)})
    line = complaint(tree, f"init={kept}", f"out={new}", "stages={prior: {steps: 1}}")
    assert "the prior was trained on another codec for stream 'text'" in line
    assert contents(kept) == before
    assert not new.exists()


def test_a_plugin_whose_codec_has_become_wider(
    site: Path, kept: Path, complaint: Complaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade: the same settings build another network."""
    from plugins_for_tests.grid_codec import GridCodec

    build = GridCodec.__init__
    monkeypatch.setattr(
        GridCodec, "__init__", lambda self, config: build(self, config.model_copy(update={"channels": 4}))
    )
    before = contents(kept)
    line = complaint(TREE, f"out={kept}", "--resume")
    assert f"{last(kept, 'codec').path}: stream grid: weights do not fit: size mismatch" in line
    assert line.endswith("use the config and the plugin version that wrote them")
    assert contents(kept) == before
    assert (last(kept, "prior").path / MANIFEST).is_file()
