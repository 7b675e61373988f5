"""`colatent eval diagnose` end to end: on a text run, on two streams, and on models that bring no data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

import colatent
from colatent.cli.diagnose import diagnose as command
from colatent.config import RunConfig, load
from colatent.config.sampling import StreamSampleConfig
from colatent.errors import UserError
from colatent.evaluate import diagnosis_denoise
from colatent.evaluate.diagnosis import Diagnosis, diagnose
from colatent.evaluate.diagnosis_decoder import reconstruction, robustness
from colatent.evaluate.diagnosis_denoise import START_TIMES, denoise, denoising
from colatent.evaluate.diagnosis_flow import FLOW_TIMES
from colatent.evaluate.figures import draw_figures
from colatent.evaluate.heldout import HeldOut, hold_out, open_held_out
from colatent_text.codec import TextCodec
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.runs import TEXT, changed, run

FIGURES = ["decoder.png", "denoising.png", "flow.png", "latents.png"]
FEW = ["--n", "3", "--quiet"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text run, long enough for its decoder to get something right."""
    tree = changed(TEXT, stages__codec__steps=60, stages__codec__lr=1e-2, stages__prior__steps=20)
    return run(tree, tmp_path_factory.mktemp("text") / "run")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(CONFIG, tmp_path_factory.mktemp("pictures") / "run", plugins=plugins_with_grid())


def called(*arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    line = str(caught.value)
    assert "\n" not in line
    return line


def held_out(config: RunConfig, **rest: Any) -> HeldOut:
    return hold_out(open_held_out(config, plugins=plugins_with_grid(), **rest), seed=rest["seed"])


def material(folder: Path, **rest: Any) -> HeldOut:
    codecs = colatent.load(folder, plugins=plugins_with_grid()).codecs
    names = {name: name for name in codecs}
    config = load(folder / "config.yaml").config
    return held_out(config, codecs=codecs, names=names, **{"n": 4, "seed": 0} | rest)


def test_table_document_and_figures(text: Path) -> None:
    shown = called(str(text), *FEW)
    folder = text / "diagnosis"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FIGURES, "diagnosis.json"])
    for name in FIGURES:
        assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    document = json.loads((folder / "diagnosis.json").read_text())
    for finding in document["findings"]:
        assert finding["text"] in shown
    assert f"{document['streams']['text']['reconstruction']['share']:.2%}" in shown
    assert str(folder / "diagnosis.json") in shown


def test_keys_of_the_document(text: Path, tmp_path: Path) -> None:
    """What programs rely on; docs/diagnosis.md lists the same."""
    document = json.loads(called(str(text), *FEW, "--out", str(tmp_path / "out"), "--json"))
    assert document == json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert list(document) == [
        "model", "n", "format", "seed", "samples", "solver", "steps", "shift", "streams", "findings"
    ]  # fmt: skip
    stream = document["streams"]["text"]
    page = (Path(__file__).resolve().parents[2] / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    for part in ("latents", "reconstruction", "robustness", "flow", "denoising"):
        missing = [key for key in stream[part] if f"`{key}`" not in page]
        assert not missing, f"docs/diagnosis.md says nothing of {part}: {missing}"
    assert stream["flow"]["t"] == list(FLOW_TIMES)
    assert stream["denoising"]["t"] == list(START_TIMES)
    assert all(
        len(stream["flow"][key]) == len(FLOW_TIMES) for key in ("loss", "constant", "gaussian", "after", "alone")
    )
    assert len(stream["latents"]["log_snr"]) == 8


def test_a_diagnosis_is_a_function_of_its_seed(text: Path, tmp_path: Path) -> None:
    def asked(seed: str) -> str:
        return called(str(text), *FEW, "--out", str(tmp_path / "out"), "--json", "--seed", seed)

    assert asked("1") == asked("1") != asked("2")


def test_a_model_outside_its_run_needs_data(text: Path, in_tmp: Path) -> None:
    step = next((text / "checkpoints" / "prior").glob("step-*"))
    shutil.copytree(step, in_tmp / "model")
    assert refused("model", *FEW) == "model: lies in no run folder, so it has no data; name a config with --data CONFIG"
    assert "does not exist" in refused("nothing", *FEW)
    called("model", "--data", str(text / "config.yaml"), *FEW)
    here = json.loads((in_tmp / "diagnosis" / "diagnosis.json").read_text())
    there = json.loads(called(str(step), *FEW, "--json"))
    assert here["streams"] == there["streams"]
    assert (text / "diagnosis" / "diagnosis.json").exists()


def test_settings_of_the_data_can_be_overridden(text: Path, tmp_path: Path) -> None:
    rest = [*FEW, "--out", str(tmp_path / "out"), "--json"]
    whole, short = (json.loads(called(str(text), *some, *rest)) for some in ([], ["data.length=8"]))
    assert (whole["streams"]["text"]["latents"]["latents"], short["streams"]["text"]["latents"]["latents"]) == (48, 24)
    assert "did you mean" in refused(str(text), "data.lengths=8", *rest)
    assert "cannot be used here" in refused(str(text), "--device", "nowhere", *rest)


def test_nothing_is_written_where_nothing_can_be(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("colatent.cli.diagnose._measure", None)  # told before anything is measured
    with pytest.raises(UserError, match="cannot be used as a folder"):
        CliRunner().invoke(command, [str(text), *FEW, "--out", str(tmp_path / "file" / "out")], catch_exceptions=False)
    assert (tmp_path / "file").read_text() == "mine"


# Against slow counting.


@torch.no_grad()
def test_place_and_noise_agree_with_counting_tokens_one_by_one(text: Path) -> None:
    held, codec = material(text).items["text"], colatent.load(text).codecs["text"]
    assert isinstance(codec, TextCodec)
    found, noisy = reconstruction(codec, held, seed=0), robustness(codec, held, seed=0)
    assert found is not None
    assert found.by_block is not None
    right = torch.zeros(4, dtype=torch.int64)
    for one in held:
        same_L = codec.logits([one.z_LC]).argmax(-1)[:, 0] == codec.token_rows(one.item).ids_LP[:, 0]
        right += (same_L & one.holds_L).view(4, 4).sum(1)
    assert [each.right for each in found.by_block] == [int(right[0]), int(right[1]), int(right[2:].sum())]
    assert 0 < int(right.sum()) == round(found.share * found.units)
    means = [one.latents(one.record.mean_LC) for one in held]
    plain = codec.reconstruction_score([one.item for one in held], means)
    assert noisy.share[0] == plain[0] / plain[1]
    assert noisy.share[-1] < noisy.share[0]


# Two streams, one of them on two axes.


@pytest.fixture(scope="module")
def both(pictures: Path) -> Diagnosis:
    model = colatent.load(pictures, plugins=plugins_with_grid())
    return diagnose(model, material(pictures), device=torch.device("cpu"))


def test_every_stream_is_diagnosed(both: Diagnosis) -> None:
    assert list(both.streams) == ["text", "grid"]
    assert both.samples == 8
    grid = both.streams["grid"]
    assert len(grid.latents.mean) == 3
    assert grid.reconstruction is not None
    assert (grid.reconstruction.by_block, grid.reconstruction.beginnings) == (None, None)
    assert sum(each.items for each in grid.reconstruction.by_length) == 8
    assert grid.flow is not None
    assert list(grid.flow.by_source) == ["paint", "describe"]
    assert 0.0 < grid.flow.history_share < 1.0
    assert grid.denoising is not None
    assert grid.denoising.clean == pytest.approx(grid.reconstruction.share)


def test_each_stream_is_solved_as_it_is_generated(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    def noted(*some: Any, **how: Any) -> Any:
        asked.add((how["solver"], how["steps"], how["shift"]))
        return denoise(*some, **how)

    monkeypatch.setattr(diagnosis_denoise, "denoise", noted)
    model = colatent.load(pictures, plugins=plugins_with_grid())
    own = {"grid": StreamSampleConfig(solver="euler", steps=3)}
    model.sample = model.sample.model_copy(update={"shift": 2.0, "streams": own})
    found = denoising(model, material(pictures), device=torch.device("cpu"), times=(1.0,))
    assert found.keys() == {"text", "grid"}
    assert asked == {("ab2", 8, 2.0), ("euler", 3, 2.0)}


def test_sources_average_to_the_whole(both: Diagnosis, pictures: Path) -> None:
    held = material(pictures)
    counts = {
        source: sum(int(s.items[n].holds_L.sum()) for s in held.sequences if s.source == source
                    for n, stream, _ in s.generated() if stream == "grid")
        for source in ("paint", "describe")
    }  # fmt: skip
    flow = both.streams["grid"].flow
    assert flow is not None
    for number, loss in enumerate(flow.loss):
        mean = sum(flow.by_source[source][number] * count for source, count in counts.items()) / sum(counts.values())
        assert loss == pytest.approx(mean)


def test_a_stream_that_is_only_given_has_no_flow(pictures: Path, tmp_path: Path) -> None:
    given = [{"stream": "text", "role": "given"}, {"stream": "grid"}]
    tree = changed(CONFIG, data__sources={"paint": {"dataset": "captions", "segments": given}})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    config = load(tmp_path / "config.yaml").config
    model = colatent.load(pictures, plugins=plugins_with_grid())
    names = {name: name for name in model.codecs}
    held = held_out(config, codecs=model.codecs, names=names, n=2, seed=0)
    found = diagnose(model, held, device=torch.device("cpu"))
    assert found.streams["text"].reconstruction is not None
    assert (found.streams["text"].flow, found.streams["text"].denoising) == (None, None)
    grid = found.streams["grid"].flow
    assert grid is not None
    assert grid.history_share == 1.0
    assert sorted(draw_figures(found)) == FIGURES


def test_figures_leave_out_what_was_not_measured(both: Diagnosis) -> None:
    from dataclasses import replace

    bare = {
        name: replace(one, reconstruction=None, robustness=None, denoising=None) for name, one in both.streams.items()
    }
    assert sorted(draw_figures(replace(both, streams=bare))) == ["flow.png", "latents.png"]
