"""Two streams of one modality in one run: codecs and parameters of their own, and each generated from the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import colatent
from colatent import Given
from colatent.checkpoint.codecs import read_facts
from colatent.cli.heldout import load_with_data
from colatent.config import load
from colatent.errors import UserError
from plugins_for_tests.grid import CONFIG, plain, plugins_with_grid
from plugins_for_tests.runs import changed, last, run

NAMES = ["left", "right"]


def cameras(names: list[str] = NAMES, **values: Any) -> dict[str, Any]:
    """A config of two streams of the same codec, in one sequence, in either order."""
    streams = {name: {"codec": "grid", "field": name} for name in names}
    source = {"dataset": "cameras", "config": {"names": names}}
    back = [{"stream": name} for name in reversed(names)]
    data = {"sources": {"there": source, "back": {**source, "segments": back}}}
    stages = changed(CONFIG["stages"], codec__steps=40, prior__steps=120, prior__batch=16)
    return changed({"name": "cameras", **CONFIG, "streams": streams, "data": data, "stages": stages}, **values)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both."""
    return run(cameras(), tmp_path_factory.mktemp("cameras") / "run", plugins=plugins_with_grid())


def test_each_stream_has_a_codec_and_parameters_of_its_own(trained: Path) -> None:
    checkpoint = last(trained, "prior")
    left, right = (read_facts(checkpoint, name) for name in NAMES)
    assert (left.codec, right.codec) == ("grid", "grid")
    assert left.hash != right.hash
    model = colatent.load(trained, plugins=plugins_with_grid())
    codecs = [dict(model.codecs[name].named_parameters()) for name in NAMES]  # type: ignore[attr-defined]
    assert not torch.equal(codecs[0]["encoder.weight"], codecs[1]["encoder.weight"])
    weights = model.prior.state_dict()
    own = {name: [key for key in weights if f".{name}." in f".{key}."] for name in NAMES}
    assert own["left"]
    assert [key.replace("left", "right") for key in own["left"]] == own["right"]
    assert any(not torch.equal(weights[key], weights[key.replace("left", "right")]) for key in own["left"])


def test_what_one_camera_sees_is_generated_from_the_other(trained: Path) -> None:
    model = colatent.load(trained, plugins=plugins_with_grid())
    for one, other in (NAMES, NAMES[::-1]):
        for bright in (True, False):
            seen = plain(bright, 2)
            drawn = model.generate_many([[Given(one, seen)]], target=other, n=8)[0]
            signs = np.mean([np.sign(result.item) == -seen for result in drawn])
            assert signs > 0.9, f"{one} -> {other}, bright {bright}: {signs:.2f}"


def test_held_out_samples_are_read_by_the_same_fields(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colatent.plugins.load_plugins", plugins_with_grid)
    config = load(trained / "config.yaml").config
    model, opened = load_with_data(str(trained), config, n=2, seed=0, device="cpu")
    assert {name: stream.field for name, stream in opened.streams.items()} == {"left": "left", "right": "right"}
    assert list(model.codecs) == NAMES


def test_the_default_is_the_first_field_of_the_codec(tmp_path: Path) -> None:
    tree = cameras(["grid", "right"], stages__codec__steps=1, stages__prior__steps=1)
    del tree["streams"]["grid"]["field"]
    found = plugins_with_grid()
    assert colatent.load(run(tree, tmp_path / "run", plugins=found), plugins=found).codecs.keys() == {"grid", "right"}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"streams__side": {"codec": "grid"}}, r"streams\.side: no source has this stream, which reads field 'grid'"),
        (
            {"streams__left__field": "lefft", "data__sources__there__segments": [{"stream": "left"}]},
            r"segments\.0: its dataset yields no 'lefft' for stream 'left'; set streams\.left\.field to one of left, r",
        ),
        ({"streams": {"grid": {"codec": "grid"}}}, r"no stream reads any of its fields left, right"),
    ],
)
def test_a_field_that_no_sample_has_is_refused(values: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        run(cameras(**values), tmp_path / "run", plugins=plugins_with_grid())
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_may_not_read_another_field(trained: Path) -> None:
    swapped = cameras(streams__left__field="right", streams__right__field="left")
    before = (trained / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=r"streams\.left\.field: is 'right', but this run was started with 'left'"):
        run(swapped, trained, plugins=plugins_with_grid(), resume=True)
    assert (trained / "config.yaml").read_bytes() == before
    assert yaml.safe_load(before)["streams"]["left"]["field"] == "left"
